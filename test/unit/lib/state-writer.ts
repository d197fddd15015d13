// SPDX-License-Identifier: Apache-2.0
/** Writes the state again and again until it is killed: the victim of store-crash.test.ts. */
import { StateDirectory } from "../../../src/store/state-directory.js";
import { idOfCount } from "./state-count.js";

const directory = StateDirectory.open(process.argv[2] ?? "", () => true);
let last = directory.state.attached[0] ?? "d0";
console.log("ready");
for (;;) {
  const next = `d${Number(last.slice(1)) + 1}`;
  directory.update((draft) => {
    // both lists change together: a state in which they differ was never one
    draft.attached = Array.from({ length: 200 }, (_, index) => (index === 0 ? next : `x${index}`));
    draft.deletedBuiltIns = [idOfCount(Number(next.slice(1)))];
  });
  last = next;
}
