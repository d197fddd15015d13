// SPDX-License-Identifier: Apache-2.0
/**
 * YAML and JSON as a tree of texts with places.
 *
 * Built from js-yaml's parser events rather than by its loader, for two reasons: a scalar stays
 * the text that was written (`id: 0097`, `1e3` and `"id": 97` are not numbers), and every node
 * keeps the line and column that errors name. JSON is read by the same means, since JSON is
 * YAML. Anchors, aliases and tags are refused: nothing here needs them, and aliases are how a
 * small file becomes a large tree. Throws nothing but VnetdError.
 */
import {
  EVENT_ID,
  SCALAR_STYLE,
  YAMLException,
  getScalarValue,
  parseEvents,
  type Event,
} from "js-yaml";
import { VnetdError, type Place } from "../base/errors.js";

export interface YamlScalar {
  kind: "scalar";
  text: string;
  /** written without quotes, so that `null` and `~` can mean "none" */
  plain: boolean;
  place: Place;
}

export interface YamlSequence {
  kind: "sequence";
  items: YamlNode[];
  place: Place;
}

export interface YamlMapping {
  kind: "mapping";
  entries: { key: YamlScalar; value: YamlNode }[];
  place: Place;
}

export type YamlNode = YamlScalar | YamlSequence | YamlMapping;

const maxDepth = 16;
const maxNodes = 1 << 17;

/** Line and column of offsets that mostly ascend. */
class Places {
  private readonly lineStarts: number[] = [0];

  constructor(
    text: string,
    private readonly source: string,
  ) {
    for (const match of text.matchAll(/\r\n|\n|\r/g)) {
      this.lineStarts.push(match.index + match[0].length);
    }
  }

  at(offset: number): Place {
    let low = 0;
    let high = this.lineStarts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.lineStarts[middle] ?? 0) <= offset) low = middle;
      else high = middle - 1;
    }
    return { source: this.source, line: low + 1, column: offset - (this.lineStarts[low] ?? 0) + 1 };
  }
}

function eventsOf(text: string, source: string): Event[] {
  try {
    return parseEvents(text, { maxDepth });
  } catch (error) {
    if (error instanceof YAMLException) {
      const { mark } = error;
      throw new VnetdError("SYNTAX", `this is not YAML or JSON: ${error.reason}`, {
        place:
          mark === undefined
            ? { source }
            : { source, line: mark.line + 1, column: mark.column + 1 },
        cause: error,
      });
    }
    throw new VnetdError("SYNTAX", "this is not YAML or JSON", { place: { source }, cause: error });
  }
}

class TreeBuilder {
  private index = 0;
  /** where the last node with a place ended: an empty scalar has none of its own */
  private lastOffset = 0;
  private readonly places: Places;

  constructor(
    private readonly text: string,
    source: string,
    private readonly events: readonly Event[],
  ) {
    this.places = new Places(text, source);
    if (events.length > maxNodes) {
      throw new VnetdError("TOO_LARGE", `more than ${maxNodes} nodes`, { place: { source } });
    }
  }

  documents(): YamlNode[] {
    const documents: YamlNode[] = [];
    for (;;) {
      const event = this.next();
      if (event === undefined) return documents;
      if (event.type !== EVENT_ID.DOCUMENT) continue;
      while (this.events[this.index]?.type !== EVENT_ID.POP) documents.push(this.node());
      this.index++;
    }
  }

  private next(): Event | undefined {
    return this.events[this.index++];
  }

  /** Recursion is bounded by maxDepth, which the parser has checked. */
  private node(): YamlNode {
    const event = this.next();
    if (event === undefined) throw this.refuse("the text ends early");
    if (event.type === EVENT_ID.ALIAS) {
      this.lastOffset = event.anchorStart;
      throw this.refuse("aliases (*name) are not understood here");
    }
    if (event.type === EVENT_ID.DOCUMENT || event.type === EVENT_ID.POP) {
      throw this.refuse("a value is missing");
    }
    const start = event.type === EVENT_ID.SCALAR ? event.valueStart : event.start;
    if (start >= 0) this.lastOffset = start;
    if (event.tagStart >= 0) throw this.refuse("tags (!name) are not understood here");
    if (event.anchorStart >= 0) throw this.refuse("anchors (&name) are not understood here");
    const place = this.places.at(this.lastOffset);
    if (event.type === EVENT_ID.SEQUENCE) return this.sequence(place);
    if (event.type === EVENT_ID.MAPPING) return this.mapping(place);
    const plain = event.style === SCALAR_STYLE.PLAIN;
    const text = getScalarValue(this.text, event);
    this.lastOffset = Math.max(this.lastOffset, event.valueEnd);
    return { kind: "scalar", text, plain, place };
  }

  private sequence(place: Place): YamlSequence {
    const items: YamlNode[] = [];
    while (this.events[this.index]?.type !== EVENT_ID.POP) items.push(this.node());
    this.index++;
    return { kind: "sequence", items, place };
  }

  private mapping(place: Place): YamlMapping {
    const entries: YamlMapping["entries"] = [];
    while (this.events[this.index]?.type !== EVENT_ID.POP) {
      const key = this.node();
      if (key.kind !== "scalar") {
        throw new VnetdError("SYNTAX", "a parameter's name must be a word", { place: key.place });
      }
      entries.push({ key, value: this.node() });
    }
    this.index++;
    return { kind: "mapping", entries, place };
  }

  private refuse(message: string): VnetdError {
    return new VnetdError("SYNTAX", message, { place: this.places.at(this.lastOffset) });
  }
}

/** The documents of a YAML stream. Comments alone, or nothing, are no document. */
export function parseYamlTree(text: string, source: string): YamlNode[] {
  return new TreeBuilder(text, source, eventsOf(text, source)).documents();
}

/** Written as `null` or `~`, without quotes. */
export function isNullScalar(node: YamlNode): boolean {
  return node.kind === "scalar" && node.plain && (node.text === "null" || node.text === "~");
}

/** Nothing is written, not even quotes: `key:`, or a document of comments. */
export function isAbsentScalar(node: YamlNode): boolean {
  return node.kind === "scalar" && node.plain && node.text === "";
}

export function describeNode(node: YamlNode): string {
  if (node.kind === "scalar") return node.text === "" ? "nothing" : `"${node.text.slice(0, 80)}"`;
  return node.kind === "sequence" ? "a list" : "a mapping";
}
