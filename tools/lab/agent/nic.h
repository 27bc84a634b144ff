/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests want of L2's network interfaces, and busybox cannot do:
 *
 *   agent nic IFACE multicast ADDRESS   receive the frames to that MAC address, too
 *   agent nic IFACE pairs COUNT         use that many pairs of queues
 *   agent nic IFACE on|off FEATURE      switch a feature, by its name in `ethtool -k`
 *   agent nic any hear ETHERTYPE        print the text in the frames of that type, whoever
 *                                       they are for
 */
#ifndef NIC_H
#define NIC_H

#include "stream.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <sys/ioctl.h>

static int nic_add_multicast(int fd, struct ifreq *ifr, const char *text)
{
	struct ether_addr *address = ether_aton(text);

	if (!address) {
		errno = EINVAL;
		return -1;
	}
	ifr->ifr_hwaddr.sa_family = AF_UNSPEC;
	memcpy(ifr->ifr_hwaddr.sa_data, address, sizeof(*address));
	return ioctl(fd, SIOCADDMULTI, ifr);
}

static int nic_set_pairs(int fd, struct ifreq *ifr, const char *text)
{
	struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };

	ifr->ifr_data = (char *)&channels;
	if (ioctl(fd, SIOCETHTOOL, ifr))
		return -1;
	channels.cmd = ETHTOOL_SCHANNELS;
	channels.combined_count = (uint32_t)strtoul(text, NULL, 0);
	return ioctl(fd, SIOCETHTOOL, ifr);
}

/* What the kernel names its features. Not more than MAX_FEATURES of them */
#define MAX_FEATURES	128

static int nic_switch(int fd, struct ifreq *ifr, const char *name, int on)
{
	struct {
		struct ethtool_gstrings head;
		char names[MAX_FEATURES][ETH_GSTRING_LEN];
	} strings = { .head = { .cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_FEATURES } };
	struct {
		struct ethtool_sfeatures head;
		struct ethtool_set_features_block blocks[MAX_FEATURES / 32];
	} set = { .head = { .cmd = ETHTOOL_SFEATURES } };
	uint32_t i;
	int r;

	ifr->ifr_data = (char *)&strings;
	if (ioctl(fd, SIOCETHTOOL, ifr))
		return -1;
	for (i = 0; i < strings.head.len && strcmp(strings.names[i], name); i++)
		;
	if (i == strings.head.len) {
		errno = ENOENT;
		return -1;
	}
	set.head.size = (strings.head.len + 31) / 32;
	set.blocks[i / 32].valid = 1U << i % 32;
	set.blocks[i / 32].requested = (uint32_t)!!on << i % 32;
	ifr->ifr_data = (char *)&set;
	r = ioctl(fd, SIOCETHTOOL, ifr);
	/* a number above 0 tells what was not done */
	if (r > 0)
		errno = EOPNOTSUPP;
	return r;
}

/* Not bound to an interface: a frame with the tag of a VLAN comes from that VLAN's own */
static int nic_hear(const char *text)
{
	int fd = socket(AF_PACKET, SOCK_DGRAM, htons((uint16_t)strtoul(text, NULL, 0)));
	char word[ETH_DATA_LEN + 1];
	ssize_t length;

	if (fd < 0)
		return -1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((length = recv(fd, word, sizeof(word) - 1, 0)) >= 0) {
		word[length] = '\0';
		printf("heard %s\n", word);
	}
	return -1;
}

/* The words after "agent nic" */
static int nic_main(char **words)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq ifr = {};
	int r;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", words[0]);
	if (!strcmp(words[1], "multicast")) {
		r = nic_add_multicast(fd, &ifr, words[2]);
	} else if (!strcmp(words[1], "pairs")) {
		r = nic_set_pairs(fd, &ifr, words[2]);
	} else if (!strcmp(words[1], "on") || !strcmp(words[1], "off")) {
		r = nic_switch(fd, &ifr, words[2], !strcmp(words[1], "on"));
	} else if (!strcmp(words[1], "hear")) {
		r = nic_hear(words[2]);
	} else {
		fprintf(stderr, "agent: nic: there is no %s\n", words[1]);
		return 2;
	}
	if (r) {
		perror("agent: nic");
		return 1;
	}
	return 0;
}

#endif /* NIC_H */
