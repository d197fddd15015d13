// SPDX-License-Identifier: Apache-2.0
/**
 * Reads one constant out of a BPF object file: its layout generation, before it is loaded.
 *
 * The generation decides in which directory the maps are pinned, so it must be known first. The
 * object holds it as the global constant `vnetd_layout`. Only what is needed of ELF is read
 * (little-endian ELF64, symbol table, one section); anything unexpected gives undefined.
 */

const elf64LittleEndian = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
const sectionHeaderBytes = 64;
const symbolBytes = 24;
const sectionTypeSymbols = 2;

interface Section {
  type: number;
  offset: number;
  size: number;
  link: number;
}

/** The u32 that the object's global symbol `name` is initialised with. */
export function elfConstant(file: Buffer, name: string): number | undefined {
  try {
    return findConstant(file, name);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

function findConstant(file: Buffer, name: string): number | undefined {
  if (!file.subarray(0, elf64LittleEndian.length).equals(elf64LittleEndian)) return undefined;
  const sections = readSections(file);
  const symbols = sections.find((section) => section.type === sectionTypeSymbols);
  const strings = symbols === undefined ? undefined : sections[symbols.link];
  if (symbols === undefined || strings === undefined) return undefined;
  const names = file.subarray(strings.offset, strings.offset + strings.size);
  const places = placesOf(names, `${name}\0`);
  for (
    let at = symbols.offset;
    at + symbolBytes <= symbols.offset + symbols.size;
    at += symbolBytes
  ) {
    if (!places.has(file.readUInt32LE(at))) continue;
    const section = sections[file.readUInt16LE(at + 6)];
    const value = Number(file.readBigUInt64LE(at + 8));
    return section === undefined ? undefined : file.readUInt32LE(section.offset + value);
  }
  return undefined;
}

/** Names that end alike may lie in one another. */
function placesOf(names: Buffer, name: string): Set<number> {
  const places = new Set<number>();
  for (let at = names.indexOf(name); at >= 0; at = names.indexOf(name, at + 1)) places.add(at);
  return places;
}

function readSections(file: Buffer): Section[] {
  const tableAt = Number(file.readBigUInt64LE(40));
  const count = file.readUInt16LE(60);
  return Array.from({ length: count }, (_, index) => {
    const at = tableAt + index * sectionHeaderBytes;
    return {
      type: file.readUInt32LE(at + 4),
      offset: Number(file.readBigUInt64LE(at + 24)),
      size: Number(file.readBigUInt64LE(at + 32)),
      link: file.readUInt32LE(at + 40),
    };
  });
}
