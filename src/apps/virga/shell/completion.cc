// completion: the scripts for shells; __complete: what they ask at each press of the key.
#include <fmt/format.h>
#include <unistd.h>

#include "apps/virga/app.h"
#include "apps/virga/commands.h"
#include "apps/virga/shell/complete.h"
#include "apps/virga/text.h"

namespace virga::cli {
namespace {

// bash takes "remote:name" and "key=value" apart at ':' and '='; they are put together again before we are asked, and what bash
// keeps of the word is taken off the answers.
constexpr std::string_view bash_script = R"sh(# bash completion for virga
_virga() {
  local line word words=() i answer prefix= files=
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if ((i > 1)) && [[ ${#words[@]} -gt 0 && ( $word == [:=]* || ${COMP_WORDS[i-1]} == *[:=] ) ]]; then
      words[${#words[@]}-1]+=$word
    else
      words+=("$word")
    fi
  done
  word=${words[${#words[@]}-1]}
  [[ $word == *[:=]* ]] && prefix=${word%"${word##*[:=]}"}
  COMPREPLY=()
  while IFS= read -r line; do
    if [[ $line == :files ]]; then files=yes; continue; fi
    answer=${line%%$'\t'*}
    COMPREPLY+=("$(printf %q "${answer#"$prefix"}")")
  done < <(virga __complete -- "${words[@]}" 2>/dev/null)
  [[ -n $files ]] && compopt -o default 2>/dev/null
  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:=/.] ]] && compopt -o nospace 2>/dev/null
}
complete -F _virga virga
)sh";

constexpr std::string_view zsh_script = R"sh(#compdef virga
# zsh completion for virga
_virga() {
  local line files= tab=$'\t'
  local -a answers texts
  while IFS= read -r line; do
    if [[ $line == :files ]]; then files=yes; continue; fi
    texts+=("${line%%$tab*}")
    if [[ $line == *$tab?* ]]; then answers+=("${line%%$tab*}  -- ${line#*$tab}"); else answers+=("${line%%$tab*}"); fi
  done < <(virga __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
  local -a open closed open_shown closed_shown
  local -i i
  for ((i = 1; i <= ${#texts}; i++)); do
    if [[ ${texts[i]} == *[:=/.] ]]; then
      open+=("${texts[i]}"); open_shown+=("${answers[i]}")
    else
      closed+=("${texts[i]}"); closed_shown+=("${answers[i]}")
    fi
  done
  ((${#closed})) && compadd -l -d closed_shown -a closed
  ((${#open})) && compadd -l -S '' -d open_shown -a open
  [[ -n $files ]] && _files
}
if [[ $funcstack[1] == _virga ]]; then _virga "$@"; else compdef _virga virga; fi
)sh";

constexpr std::string_view fish_script = R"sh(# fish completion for virga
function __virga_complete
    set -l words (commandline -opc)
    set -e words[1]
    set -l current (commandline -ct)
    for line in (virga __complete -- $words "$current" 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path "$current"
        else
            printf '%s\n' $line
        end
    end
end
complete -c virga -f -a '(__virga_complete)'
)sh";

Result<> script(App& app, const Args& args) {
  const auto& shell = args[0];
  if (shell == "bash")
    app.write(bash_script);
  else if (shell == "zsh")
    app.write(zsh_script);
  else if (shell == "fish")
    app.write(fish_script);
  else
    return fail(Error(ErrorKind::invalid, fmt::format("Unknown shell \"{}\"", shell)).with_hint("one of: bash, zsh, fish"));
  return {};
}

Result<> answer(App& app, const Args& args) {
  // Who presses a key does not wait for a daemon that hangs.
  constexpr unsigned patience_seconds = 3;
  ::alarm(patience_seconds);
  const auto config = app.config();
  const auto completion = complete(app.root(), config ? (*config)->aliases : Aliases(), args.words, live_names(app));
  for (const auto& [text, about] : completion.candidates) {
    const auto line = about.substr(0, about.find('\n'));
    app.write(line.empty() ? escaped_line(text) + "\n" : fmt::format("{}\t{}\n", escaped_line(text), escaped_line(line)));
  }
  if (completion.files) app.write(":files\n");
  return {};
}

}  // namespace

Command completion_command() {
  return {.use = "completion <shell>",
          .summary = "Print a script that completes virga's commands and names in a shell",
          .description =
              "Completes commands, flags and the names of what there is: instances, images, profiles, networks, pools, keys.\n"
              "The shell is bash, zsh or fish. The packages install these scripts.",
          .examples =
              "virga completion bash > /etc/bash_completion.d/virga\nvirga completion zsh > "
              "/usr/share/zsh/vendor-completions/_virga\nvirga completion fish > ~/.config/fish/completions/virga.fish\n"
              "source <(virga completion bash)\n    For this shell only",
          .least = 1,
          .most = 1,
          .run = script,
          .own_remotes = true};
}

Command complete_command() {
  return {.use = "__complete [<word>...]",
          .summary = "Say what may stand next on a command line",
          .examples = "virga __complete -- config set \"\"",
          .most = any_number,
          .run = answer,
          .own_remotes = true,
          .hidden = true};
}

}  // namespace virga::cli
