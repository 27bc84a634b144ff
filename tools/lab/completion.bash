# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Completion of tools/lab/lab for bash: `. tools/lab/completion.bash`. What there is comes from lab's own help.

_virtio_lm_lab()
{
	local lab=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} first=1 command words
	[ "${COMP_WORDS[1]-}" != --lab ] || first=3
	command=${COMP_WORDS[first]-}
	if [ "$COMP_CWORD" -le "$first" ]; then
		words="--lab $("$lab" --help | sed -n 's/^  \([a-z][a-z0-9]*\) .*/\1/p')"
	elif [[ $word = -* ]]; then
		words=$("$lab" "$command" --help | grep -o -e '--[a-z0-9-]*' | sort -u)
	else
		case $command in
		bench) words=$("$lab" check --list --group bench | sed '1d; s/ .*//') ;;
		check) words=$("$lab" check --list | sed '1d; s/ .*//') ;;
		exec | vdpa | migrate) words="l1a l1b" ;;
		console | qmp | logs) words="l1a l1b l2 l2b" ;;
		l2) words="start stop status" ;;
		fuzz) words="plain iommu" ;;
		*) words= ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -o bashdefault -o default -F _virtio_lm_lab lab
