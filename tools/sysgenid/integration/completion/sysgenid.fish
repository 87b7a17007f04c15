# SPDX-License-Identifier: GPL-2.0
# fish completion for sysgenid(8)

set -l commands status get wait watch run trigger wait-watchers wait-settled hooks prepare seal gate

complete -c sysgenid -f
complete -c sysgenid -n "not __fish_seen_subcommand_from $commands" -a "$commands"
complete -c sysgenid -n "not __fish_seen_subcommand_from $commands" -l version -d "Print the version"
complete -c sysgenid -l help -d "Print what there is"
complete -c sysgenid -n "__fish_seen_subcommand_from status get wait watch trigger wait-watchers wait-settled hooks seal" \
	-l json -d "Print JSON"
complete -c sysgenid -n "__fish_seen_subcommand_from wait" -l from -x -d "Return at once if it is not N"
complete -c sysgenid -n "__fish_seen_subcommand_from wait wait-watchers wait-settled" \
	-l timeout -x -d "Seconds to wait at most"
complete -c sysgenid -n "__fish_seen_subcommand_from trigger" -l min -x -d "The least generation"
complete -c sysgenid -n "__fish_seen_subcommand_from hooks; and not __fish_seen_subcommand_from list run" \
	-a "list run"
complete -c sysgenid -n "__fish_seen_subcommand_from hooks; and __fish_seen_subcommand_from run" \
	-a "(command ls /etc/sysgenid/hooks.d 2>/dev/null)"
complete -c sysgenid -n "__fish_seen_subcommand_from hooks prepare seal" \
	-l dry-run -d "Only say what would be done"
complete -c sysgenid -n "__fish_seen_subcommand_from prepare" -l undo -d "Undo what the hooks did"
complete -c sysgenid -n "__fish_seen_subcommand_from seal" -l list -d "List what is removed"
complete -c sysgenid -n "__fish_seen_subcommand_from seal" -l root -xa "(__fish_complete_directories)" \
	-d "The system in that directory"
complete -c sysgenid -n "__fish_seen_subcommand_from seal" -l yes -d "Do it"
complete -c sysgenid -n "__fish_seen_subcommand_from gate" -F
complete -c sysgenid -n "__fish_seen_subcommand_from watch run" -xa "(__fish_complete_subcommand)"
