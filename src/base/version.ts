// SPDX-License-Identifier: Apache-2.0
/** The release this tree is; a test keeps it equal to package.json's. */
export const version = "0.1.0";
