/**
 * House: find things, change them and put them somewhere, in rooms that are described in words.
 *
 * In the manner of ALFWorld (Shridhar et al., arXiv:2010.03768), which cannot run here; families of tasks and verbs
 * are ALFWorld's as recalled, everything else is our own and far smaller: pick, pick two, look under a lamp, clean, heat, cool.
 *
 * Unseen episodes have both a room layout and a pair of thing and destination that no training episode has.
 */
import { fold, type Key, key as newKey } from "../core/rng.ts";
import {
  type Environment,
  type Episode,
  NOTHING,
  type Outcome,
  pick,
  type Policy,
  shuffled,
  type Split,
  stream,
} from "./environment.ts";

/** Kinds of places; those that close start closed. */
const PLACES = {
  fridge: { closes: true },
  cabinet: { closes: true },
  drawer: { closes: true },
  dresser: { closes: true },
  countertop: { closes: false },
  shelf: { closes: false },
  desk: { closes: false },
  sidetable: { closes: false },
  sofa: { closes: false },
  bed: { closes: false },
  microwave: { closes: true },
  sinkbasin: { closes: false },
} as const;
type Kind = keyof typeof PLACES;

/** What can be done to each thing: c clean, h heat, k cool, l look at. */
const THINGS: Record<string, string> = {
  apple: "chk",
  potato: "chk",
  tomato: "chk",
  lettuce: "ck",
  bread: "hk",
  egg: "hk",
  mug: "chk",
  cup: "chk",
  plate: "chk",
  bowl: "ckl",
  pan: "ck",
  fork: "c",
  spoon: "c",
  knife: "c",
  soap: "c",
  cloth: "c",
  book: "l",
  pen: "l",
  phone: "l",
  keys: "l",
  watch: "l",
  card: "l",
  statue: "l",
  vase: "l",
  box: "l",
};

export const FAMILIES = [
  "pick",
  "pick two",
  "look",
  "clean",
  "heat",
  "cool",
] as const;
export type Family = typeof FAMILIES[number];

/** Where a thing is changed, by which verb, and what it is then called. */
const CHANGES = {
  clean: { letter: "c", at: "sinkbasin", state: "clean" },
  heat: { letter: "h", at: "microwave", state: "hot" },
  cool: { letter: "k", at: "fridge", state: "cool" },
} as const;
type Change = keyof typeof CHANGES;

const STORAGE: Kind[] = [
  "fridge",
  "cabinet",
  "drawer",
  "dresser",
  "countertop",
  "shelf",
  "desk",
  "sidetable",
  "sofa",
  "bed",
];

/** Layouts to learn from, and further ones for unseen episodes. */
const LAYOUTS = { train: 64, unseen: 32 };

const isChange = (family: Family): family is Change => family in CHANGES;
const kindOf = (place: string) => place.split(" ")[0] as Kind;
const thingOf = (object: string) => object.split(" ")[0];

/** Whether a pair of thing and destination is kept for unseen episodes: one in five. */
function heldOut(thing: string, kind: Kind): boolean {
  const i = Object.keys(THINGS).indexOf(thing);
  return (i + 2 * STORAGE.indexOf(kind)) % 5 === 0;
}

/** The places of a layout, seven or eight of them, always with a basin, a microwave and a fridge. */
function layoutPlaces(split: Split, index: number): string[] {
  const next = stream(
    fold(
      fold(newKey(2010), "layout"),
      split === "train" ? index : 1000 + index,
    ),
  );
  const kinds: Kind[] = ["sinkbasin", "microwave", "fridge"];
  const extra = 4 + Math.floor(next() * 2);
  const others = STORAGE.filter((kind) => kind !== "fridge");
  while (kinds.length < 3 + extra) {
    const kind = pick(others, next);
    if (kinds.filter((k) => k === kind).length < 2) kinds.push(kind);
  }
  const count: Partial<Record<Kind, number>> = {};
  return shuffled(kinds, next).map((kind) => {
    count[kind] = (count[kind] ?? 0) + 1;
    return `${kind} ${count[kind]}`;
  });
}

/** What an episode is about. */
interface Goal {
  family: Family;
  thing: string;
  /** Kind of the destination; none when looking. */
  kind: Kind | null;
}

function taskText({ family, thing, kind }: Goal): string {
  if (family === "look") return `look at ${thing} under lamp`;
  if (family === "pick") return `put ${thing} in ${kind}`;
  if (family === "pick two") return `put two ${thing} in ${kind}`;
  return `put ${CHANGES[family].state} ${thing} in ${kind}`;
}

function readTask(header: string): Goal & { places: string[] } {
  const task = /^Task: (.*)$/m.exec(header)?.[1] ?? "";
  const words = (/^Places: (.*)$/m.exec(header)?.[1] ?? "").split(" ");
  const places: string[] = [];
  for (let i = 0; i + 1 < words.length; i += 2) {
    places.push(`${words[i]} ${words[i + 1]}`);
  }
  const look = /^look at (\w+) under lamp$/.exec(task);
  if (look) return { family: "look", thing: look[1], kind: null, places };
  const put = /^put (?:(two|clean|hot|cool) )?(\w+) in (\w+)$/.exec(task);
  if (!put) {
    throw new SyntaxError(`Cannot read the task of a house: ${task}`);
  }
  const change = (Object.keys(CHANGES) as Change[])
    .find((name) => CHANGES[name].state === put[1]);
  const family = change ?? (put[1] === "two" ? "pick two" : "pick");
  return { family, thing: put[2], kind: put[3] as Kind, places };
}

/** Draws a goal of the split that the layout allows. */
function drawGoal(places: string[], split: Split, next: () => number): Goal {
  const present = new Set(places.map(kindOf));
  for (;;) {
    const family = pick(FAMILIES, next);
    const letter = isChange(family)
      ? CHANGES[family].letter
      : family === "look"
      ? "l"
      : "";
    const thing = pick(
      Object.keys(THINGS).filter((name) => THINGS[name].includes(letter)),
      next,
    );
    if (family === "look") {
      // No destination: what is held out is the thing beside a destination it does not have.
      if (heldOut(thing, "fridge") === (split === "unseen")) {
        return { family, thing, kind: null };
      }
      continue;
    }
    const kinds = STORAGE.filter((kind) =>
      present.has(kind) && heldOut(thing, kind) === (split === "unseen")
    );
    if (kinds.length > 0) return { family, thing, kind: pick(kinds, next) };
  }
}

function reset(key: Key, split: Split): Episode {
  const next = stream(fold(key, "house"));
  const places = layoutPlaces(split, Math.floor(next() * LAYOUTS[split]));
  const goal = drawGoal(places, split, next);
  const needed = goal.family === "pick two" ? 2 : 1;

  // Things: those that the task is about, away from the destination, and a few others anywhere.
  const holds = new Map<string, string[]>(places.map((place) => [place, []]));
  const away = places.filter((place) => kindOf(place) !== goal.kind);
  for (let i = 1; i <= needed; i++) {
    holds.get(pick(away, next))!.push(`${goal.thing} ${i}`);
  }
  const others = shuffled(
    Object.keys(THINGS).filter((name) => name !== goal.thing),
    next,
  ).slice(0, 5);
  for (const name of others) holds.get(pick(places, next))!.push(`${name} 1`);
  if (goal.family === "look") {
    const flat = places.filter((place) => !PLACES[kindOf(place)].closes);
    holds.get(pick(flat, next))!.push("lamp 1");
  }
  const open = new Set(places.filter((place) => !PLACES[kindOf(place)].closes));
  const changed = new Set<string>();
  const delivered = new Set<string>();
  let at: string | null = null;
  let held: string | null = null;
  let looked = false;

  const isGoal = (object: string) => thingOf(object) === goal.thing;
  const contents = (place: string) => holds.get(place)!.join(" ") || "nothing";
  const succeeded = () =>
    goal.family === "look" ? looked : delivered.size >= needed;

  const admissible = (): string[] => {
    const actions = places.filter((place) => place !== at)
      .map((place) => `go to ${place}`);
    if (at === null) return actions;
    if (!open.has(at)) actions.push(`open ${at}`);
    else {
      for (const object of holds.get(at)!) {
        if (object === "lamp 1") actions.push("use lamp 1");
        else if (held === null) actions.push(`take ${object} from ${at}`);
      }
      if (held !== null) actions.push(`put ${held} in ${at}`);
    }
    if (held !== null) {
      for (const [verb, { at: kind, letter }] of Object.entries(CHANGES)) {
        if (kindOf(at) === kind && THINGS[thingOf(held)].includes(letter)) {
          actions.push(`${verb} ${held} with ${at}`);
        }
      }
    }
    return actions;
  };

  const act = (action: string): string => {
    const [verb, ...rest] = action.split(" ");
    if (verb === "go") {
      at = rest.slice(1).join(" ");
      return open.has(at)
        ? `you are at ${at} , you see ${contents(at)}`
        : `you are at ${at} , it is closed`;
    }
    if (verb === "open") {
      open.add(at!);
      return `you open ${at} , you see ${contents(at!)}`;
    }
    if (verb === "use") {
      looked = held !== null && isGoal(held);
      return `you use lamp 1`;
    }
    const object = rest.slice(0, 2).join(" ");
    if (verb === "take") {
      const here = holds.get(at!)!;
      here.splice(here.indexOf(object), 1);
      held = object;
      delivered.delete(object);
      return `you take ${object}`;
    }
    if (verb === "put") {
      holds.get(at!)!.push(object);
      held = null;
      const right = kindOf(at!) === goal.kind && isGoal(object) &&
        (!isChange(goal.family) || changed.has(`${goal.family} ${object}`));
      if (right) delivered.add(object);
      return `you put ${object}`;
    }
    changed.add(`${verb} ${object}`);
    if (verb === "heat") changed.delete(`cool ${object}`);
    if (verb === "cool") changed.delete(`heat ${object}`);
    return `you ${verb} ${object}`;
  };

  return {
    header: `Task: ${taskText(goal)}\nPlaces: ${places.join(" ")}\n`,
    observation: "you are in the middle of a room",
    admissible,
    step(action): Outcome {
      const valid = admissible().includes(action);
      const observation = valid ? act(action) : NOTHING;
      const success = succeeded();
      return { observation, reward: success ? 1 : 0, done: success, valid };
    },
  };
}

/** Ways to say the same; which one is drawn anew at each turn. */
const SAY = {
  search: ["next is", "I try", "I look at", "let me check"],
  open: ["it is closed", "I must open it"],
  take: ["I see it", "found it", "here it is"],
  bring: ["bring it to", "it goes to", "I carry it to"],
  change: ["it is not yet", "I make it", "it must be"],
  put: ["I put it down", "this is the place"],
  lamp: ["now use lamp", "I see lamp"],
} as const;

/** An expert that looks into place after place and writes down all that it will need later. */
function expert(
  key: Key,
  { detours = 0 }: { detours?: number } = {},
): Policy {
  const next = stream(fold(key, "house expert"));
  let goal: ReturnType<typeof readTask> | null = null;
  let pointer = 0;
  let at: string | null = null;
  let closed = false;
  let held: string | null = null;
  let changed = false;
  let done = 0;
  /** Where things of the task and the lamp were seen. */
  const seen = new Map<string, string>();

  const note = (observation: string) => {
    const { thing, places } = goal!;
    const went = /^you are at (\w+ \d+) , (.*)$/.exec(observation);
    if (went) [at, closed] = [went[1], went[2] === "it is closed"];
    if (observation.startsWith("you open")) closed = false;
    if (at !== null && at === places[pointer] && !closed) {
      pointer = (pointer + 1) % places.length;
    }
    const sight = /you see (.*)$/.exec(observation)?.[1] ?? "";
    const objects = sight === "nothing" ? [] : sight.match(/\w+ \d+/g) ?? [];
    for (const object of objects) {
      const isTarget = thingOf(object) === thing && kindOf(at!) !== goal!.kind;
      if (isTarget || object === "lamp 1") seen.set(object, at!);
    }
    const did = /^you (\w+) (\w+ \d+)$/.exec(observation);
    if (did?.[1] === "take") {
      held = did[2];
      seen.delete(held);
    } else if (did?.[1] === "put") {
      held = null;
      done++;
    } else if (did && did[1] in CHANGES) changed = true;
  };

  return ({ header, observation }) => {
    goal ??= readTask(header);
    note(observation);
    const { family, thing, kind, places } = goal;
    const known = (name: string) =>
      [...seen].find(([object]) => thingOf(object) === name) ?? null;
    const memory: string[] = [held === null ? "hold none" : `hold ${held}`];
    if (isChange(family) && changed) memory.push(CHANGES[family].state);
    if (family === "pick two") memory.push(`done ${done} of 2`);
    const other = known(family === "look" ? "lamp" : thing);
    if (
      other !== null && other[1] !== at &&
      (family === "look" || family === "pick two")
    ) memory.push(`seen ${other[0]} at ${other[1]}`);
    const searching = held === null
      ? known(thing) === null
      : family === "look" && known("lamp") === null;
    if (searching || family === "pick two" || family === "look") {
      memory.push(`next ${places[pointer]}`);
    }
    const say = (what: keyof typeof SAY, rest: string, action: string) => ({
      reasoning: `${memory.join(" , ")} , ${pick(SAY[what], next)}${rest}`,
      action,
    });
    const go = (what: keyof typeof SAY, place: string) =>
      at === place && closed
        ? say("open", "", `open ${place}`)
        : say(what, ` ${place}`, `go to ${place}`);

    if (searching) {
      if (at === places[pointer] && closed) return go("search", at);
      if (next() < detours) {
        const place = pick(places.filter((p) => p !== at), next);
        return {
          reasoning: `${memory.join(" , ")} , first a look at ${place}`,
          action: `go to ${place}`,
        };
      }
      return go("search", places[pointer]);
    }
    if (held === null) {
      const [object, place] = known(thing)!;
      if (at !== place || closed) return go("bring", place);
      return say("take", "", `take ${object} from ${place}`);
    }
    if (family === "look") {
      const [, place] = known("lamp")!;
      return at === place ? say("lamp", "", "use lamp 1") : go("bring", place);
    }
    if (isChange(family) && !changed) {
      const { at: station, state } = CHANGES[family];
      const place = places.find((p) => kindOf(p) === station)!;
      return at === place
        ? say("change", ` ${state}`, `${family} ${held} with ${place}`)
        : go("bring", place);
    }
    const place = places.find((p) => kindOf(p) === kind)!;
    return at === place && !closed
      ? say("put", "", `put ${held} in ${place}`)
      : go("bring", place);
  };
}

/** The world of rooms and things; see the head of this file. */
export function house(): Environment {
  return {
    name: "house",
    maxSteps: 30,
    reset,
    expert,
    vocabulary: () => [
      "Task: Places: Reasoning: Action: Observation:",
      "put two clean hot cool look at under lamp in from with to go open take heat use",
      Object.keys(PLACES).join(" "),
      Object.keys(THINGS).join(" "),
      "you are at see nothing happens it is closed the middle of a room 1 2 0 ,",
      "hold none done of seen next first",
      Object.values(SAY).flat().join(" "),
    ],
  };
}
