// SPDX-License-Identifier: Apache-2.0
/** completion prints a shell's completion function; the function asks __complete. */
import { readFileSync } from "node:fs";
import { requestOnce } from "../../src/api/client.js";
import { VnetdError } from "../../src/base/errors.js";
import { shortVnetId } from "../../src/base/vnet-id.js";
import type { CommandSpec, Invocation } from "../command.js";
import { complete, filesMark, type CompletionSources } from "../complete.js";

const bashScript = `# bash completion of vnetd and vn; load it with:  eval "$(vnetd completion bash)"
_vnetd() {
  local line="\${COMP_LINE:0:COMP_POINT}" current candidate
  current="\${line##*[[:space:]]}"
  COMPREPLY=()
  while IFS= read -r candidate; do
    if [[ $candidate == "${filesMark}" ]]; then
      compopt -o filenames 2>/dev/null
      while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done < <(compgen -f -- "$current")
    else
      COMPREPLY+=("$candidate")
    fi
  done < <("$1" __complete "$line" 2>/dev/null </dev/null)
  # where a colon separates words, bash wants only what follows the last one
  if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
    COMPREPLY=("\${COMPREPLY[@]#"\${current%"\${current##*:}"}"}")
  fi
}
complete -F _vnetd vnetd vn
`;

const zshScript = `#compdef vnetd vn
# zsh completion of vnetd and vn; load it with:  eval "$(vnetd completion zsh)"
_vnetd() {
  local -a candidates
  candidates=("\${(@f)$("\${words[1]}" __complete "\${(j: :)words[1,CURRENT]}" 2>/dev/null </dev/null)}")
  candidates=(\${candidates:#})
  if (( \${candidates[(Ie)${filesMark}]} )); then
    _files
    candidates=(\${candidates:#${filesMark}})
  fi
  (( \${#candidates} )) && compadd -a candidates
}
if [[ "\${funcstack[1]}" == _vnetd ]]; then
  _vnetd "$@"
else
  compdef _vnetd vnetd vn
fi
`;

function shellOf(invocation: Invocation): string {
  const named =
    invocation.option("SHELL") ?? invocation.environment.variables["SHELL"]?.split("/").at(-1);
  if (named === "bash" || named === "zsh") return named;
  throw new VnetdError(
    "USAGE",
    named === undefined ? "which shell?" : `there is no completion for the shell "${named}"`,
    {
      hint: `Say which: ${invocation.environment.program} completion bash, or zsh.`,
    },
  );
}

/** A completion never waits long and never fails: what cannot be asked is left out. */
function sourcesOf(invocation: Invocation): CompletionSources {
  return {
    devices: () => {
      try {
        // of this network namespace; /sys shows that of whoever mounted it
        const lines = readFileSync("/proc/self/net/dev", "utf8").split("\n");
        return lines
          .flatMap((line) => /^ *([^ ]+): /.exec(line)?.[1] ?? [])
          .filter((n) => n !== "lo");
      } catch {
        return [];
      }
    },
    vnets: async () => {
      const options = { runDir: invocation.runDir, connectTimeoutMs: 500, answerTimeoutMs: 1000 };
      try {
        return (await requestOnce(options, "vnetList", {})).map(({ id }) => shortVnetId(id));
      } catch {
        return [];
      }
    },
  };
}

export const completionCommands: readonly CommandSpec[] = [
  {
    name: "completion",
    describe: "print the completion function of a shell",
    positionals: [{ name: "SHELL", describe: "bash or zsh", completes: "shell", optional: true }],
    epilogue:
      'In bash: eval "$(vnetd completion bash)". In zsh: eval "$(vnetd completion zsh)", after compinit.',
    run: (invocation) => {
      invocation.output.text(shellOf(invocation) === "bash" ? bashScript : zshScript);
    },
  },
  {
    name: "__complete",
    describe: "list what may follow a half-typed line",
    positionals: [{ name: "LINE", describe: "the line up to the cursor", completes: "none" }],
    hidden: true,
    run: async (invocation) => {
      const candidates = await complete(
        invocation.positional("LINE"),
        invocation.commands,
        sourcesOf(invocation),
      );
      for (const candidate of candidates) invocation.output.line(candidate);
    },
  },
];
