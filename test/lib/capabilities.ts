// SPDX-License-Identifier: Apache-2.0
/** Commands as user 0 without root's powers, as the systemd unit and the DaemonSet run the daemon. */

/** With these capabilities alone ("NET_ADMIN" or "CAP_NET_ADMIN"); nothing that is run from there gets more. */
export function withOnly(names: readonly string[], argv: readonly string[]): string[] {
  const added = names.map((name) => `,+${name.replace("CAP_", "").toLowerCase()}`);
  return [
    ...["setpriv", "--no-new-privs", "--inh-caps=-all", `--bounding-set=-all${added.join("")}`],
    ...argv,
  ];
}
