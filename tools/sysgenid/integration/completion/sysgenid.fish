# SPDX-License-Identifier: GPL-2.0
# fish completion for sysgenid(8)

set -l commands status get wait watch run trigger wait-watchers wait-settled hooks prepare seal gate

complete -c sysgenid -f
complete -c sysgenid -n "not __fish_seen_subcommand_from $commands" -a "$commands"
complete -c sysgenid -n "not __fish_seen_subcommand_from $commands" -l version -d "Print the version"
complete -c sysgenid -l help -d "Print help"
complete -c sysgenid -n "__fish_seen_subcommand_from status get wait watch trigger wait-watchers wait-settled hooks seal" \
	-l json -d "Print JSON"
complete -c sysgenid -n "__fish_seen_subcommand_from wait" -l from -x -d "Return at once if the generation is not N"
complete -c sysgenid -n "__fish_seen_subcommand_from wait wait-watchers wait-settled" \
	-l timeout -x -d "Timeout in seconds"
complete -c sysgenid -n "__fish_seen_subcommand_from trigger" -l min -x -d "Minimum of the new generation"
complete -c sysgenid -n "__fish_seen_subcommand_from hooks; and not __fish_seen_subcommand_from list run" \
	-a "list run"
complete -c sysgenid -n "__fish_seen_subcommand_from hooks; and __fish_seen_subcommand_from run" \
	-a "(command ls /etc/sysgenid/hooks.d 2>/dev/null)"
complete -c sysgenid -n "__fish_seen_subcommand_from hooks prepare seal" \
	-l dry-run -d "Only print what would be done"
complete -c sysgenid -n "__fish_seen_subcommand_from prepare" -l undo -d "Undo what the hooks did"
complete -c sysgenid -n "__fish_seen_subcommand_from seal" -l list -d "List what is removed"
complete -c sysgenid -n "__fish_seen_subcommand_from seal" -l root -xa "(__fish_complete_directories)" \
	-d "Seal the system in this directory"
complete -c sysgenid -n "__fish_seen_subcommand_from seal" -l yes -d "Confirm the removal"
complete -c sysgenid -n "__fish_seen_subcommand_from gate" -F
complete -c sysgenid -n "__fish_seen_subcommand_from watch run" -xa "(__fish_complete_subcommand --fcs-skip=2)"
