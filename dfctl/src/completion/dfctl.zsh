#compdef dfctl
# zsh completion of dfctl. Made by `dfctl completion zsh`.
_dfctl() {
    local -a found
    local line files
    for line in "${(@f)$("${~words[1]}" __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
            '') ;;
            :files) files=any ;;
            :dirs) files=dirs ;;
            *$'\t'*) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
            *) found+=("${line//:/\\:}") ;;
        esac
    done
    (( $#found )) && _describe -V dfctl found
    case $files in
        any) _files ;;
        dirs) _files -/ ;;
    esac
}
if [[ ${funcstack[1]} == _dfctl ]]; then
    _dfctl "$@"
else
    compdef _dfctl dfctl
fi
