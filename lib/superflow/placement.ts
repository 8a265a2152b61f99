/** Placed netlists: what placement hands to routing and layout. */
import type { LevelledNetlist } from "./netlist.ts";

/** A levelled netlist with a place for each cell; the row of a cell is its level, rows run upwards. */
export interface PlacedNetlist extends LevelledNetlist {
  /** Left edge of each cell in steps of the library's grid. */
  x: Int32Array; // [N]
}
