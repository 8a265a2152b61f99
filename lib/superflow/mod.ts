/** SuperFlow: from RTL to a verified layout of an AQFP chip; every stage can be called alone. */
export * from "./buffer-rows.ts";
export * from "./clock.ts";
export * from "./drc.ts";
export * from "./equivalence.ts";
export * from "./files.ts";
export * from "./flow.ts";
export * from "./insertion.ts";
export * from "./layout.ts";
export * from "./legality.ts";
export * from "./lvs.ts";
export * from "./majority.ts";
export * from "./netlist.ts";
export * from "./placement.ts";
export * from "./routing.ts";
export * from "./simulation.ts";
export * from "./synthesis.ts";
export * from "./view.ts";
