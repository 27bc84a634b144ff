/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests want of L2's network interfaces, and busybox cannot do:
 *
 *   agent nic IFACE multicast ADDRESS   receive the frames to that MAC address, too
 *   agent nic IFACE pairs COUNT         use that many pairs of queues
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
