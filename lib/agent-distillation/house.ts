/**
 * House: find things, change them and put them somewhere, in rooms that are described in words.
 *
 * In the manner of ALFWorld (Shridhar et al., arXiv:2010.03768), which cannot run here; families of tasks and verbs
 * are ALFWorld's as recalled, everything else is our own and far smaller: pick, pick two, look under a lamp, clean, heat, cool.
 *
 * Each place shows which one lies beyond it, so that one who goes on and on comes past all.
 * A layout has a place of each kind at most once, so that a place is one word, as are things.
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
const LAYOUTS = { train: 512, unseen: 128 };

const isChange = (family: Family): family is Change => family in CHANGES;
const closes = (place: string) => PLACES[place as Kind].closes;
const count = <T>(items: readonly T[], item: T) =>
  items.filter((own) => own === item).length;

/** Whether a pair of thing and destination is kept for unseen episodes: one in five. */
function heldOut(thing: string, kind: Kind): boolean {
  const i = Object.keys(THINGS).indexOf(thing);
  return (i + 2 * STORAGE.indexOf(kind)) % 5 === 0;
}

/** The places of a layout in their order, seven or eight, always with a basin, a microwave and a fridge. */
function layoutPlaces(split: Split, index: number): Kind[] {
  const key = fold(fold(newKey(2010), `layout ${split}`), index);
  const next = stream(key);
  const others = STORAGE.filter((kind) => kind !== "fridge");
  const extra = 4 + Math.floor(next() * 2);
  const some = shuffled(others, next).slice(0, extra);
  return shuffled([...some, "sinkbasin", "microwave", "fridge"], next);
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
  const places = (/^Places: (.*)$/m.exec(header)?.[1] ?? "").split(" ");
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
function drawGoal(places: Kind[], split: Split, next: () => number): Goal {
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
      // There is no destination: the lamp counts as one, so that its things are divided too.
      if (heldOut(thing, "desk") === (split === "unseen")) {
        return { family, thing, kind: null };
      }
      continue;
    }
    const kinds = STORAGE.filter((kind) =>
      places.includes(kind) && heldOut(thing, kind) === (split === "unseen")
    );
    if (kinds.length > 0) return { family, thing, kind: pick(kinds, next) };
  }
}

function reset(key: Key, split: Split): Episode {
  const next = stream(fold(key, "house"));
  const index = Math.floor(next() * LAYOUTS[split]);
  const places: string[] = layoutPlaces(split, index);
  const goal = drawGoal(places as Kind[], split, next);
  const { family, thing, kind } = goal;
  const needed = family === "pick two" ? 2 : 1;

  // The things of the task, away from their destination, and a few others anywhere.
  const holds = new Map<string, string[]>(places.map((place) => [place, []]));
  const away = places.filter((place) => place !== kind);
  for (let i = 0; i < needed; i++) holds.get(pick(away, next))!.push(thing);
  const others = Object.keys(THINGS).filter((name) => name !== thing);
  for (const name of shuffled(others, next).slice(0, 5)) {
    holds.get(pick(places, next))!.push(name);
  }
  if (family === "look") {
    const flat = places.filter((place) => !closes(place));
    holds.get(pick(flat, next))!.push("lamp");
  }
  const open = new Set(places.filter((place) => !closes(place)));
  let at: string | null = null;
  let held: string | null = null;
  /** What was done last to the thing of the task. */
  let changed: string | null = null;
  let looked = false;

  const sight = (place: string) => holds.get(place)!.join(" ") || "nothing";
  const beyond = (place: string) =>
    `beyond is ${places[(places.indexOf(place) + 1) % places.length]}`;
  const succeeded = () =>
    family === "look" ? looked : count(holds.get(kind!)!, thing) >= needed &&
      (!isChange(family) || changed === family);

  const admissible = (): string[] => {
    const actions = places.filter((place) => place !== at)
      .map((place) => `go to ${place}`);
    if (at === null) return actions;
    if (!open.has(at)) actions.push(`open ${at}`);
    else {
      for (const object of new Set(holds.get(at)!)) {
        if (object === "lamp") actions.push("use lamp");
        else if (held === null) actions.push(`take ${object} from ${at}`);
      }
      if (held !== null) actions.push(`put ${held} in ${at}`);
    }
    if (held !== null) {
      for (const [verb, { at: station, letter }] of Object.entries(CHANGES)) {
        if (at === station && THINGS[held].includes(letter)) {
          actions.push(`${verb} ${held} with ${at}`);
        }
      }
    }
    return actions;
  };

  const act = (action: string): string => {
    const [verb, object, ...rest] = action.split(" ");
    switch (verb) {
      case "go":
        at = rest[0];
        return open.has(at)
          ? `you are at ${at} , ${beyond(at)} , you see ${sight(at)}`
          : `you are at ${at} , ${beyond(at)} , it is closed`;
      case "open":
        open.add(at!);
        return `you open ${at} , ${beyond(at!)} , you see ${sight(at!)}`;
      case "use":
        looked = held === thing;
        return "you use lamp";
      case "take": {
        const here = holds.get(at!)!;
        here.splice(here.indexOf(object), 1);
        held = object;
        return `you take ${object}`;
      }
      case "put":
        holds.get(at!)!.push(object);
        held = null;
        return `you put ${object}`;
      default: // one of CHANGES
        if (object === thing) changed = verb;
        return `you ${verb} ${object}`;
    }
  };

  return {
    header: `Task: ${taskText(goal)}\nPlaces: ${places.join(" ")}\n`,
    observation: `you are in the middle of a room , beyond is ${places[0]}`,
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
  search: ["not here", "no luck", "not yet", "still looking"],
  open: ["closed", "must open"],
  take: ["here it is", "found it", "I see it"],
  recall: ["was seen at", "I saw it at"],
  bring: ["bring to", "carry to", "goes to"],
  change: ["make it", "must be"],
  put: ["put down", "this is the place"],
  lamp: ["use the lamp", "here is the lamp"],
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
  let held = false;
  let changed = false;
  let done = 0;
  let lamp: string | null = null;
  /** How many things of the task were seen, by place. */
  const seen = new Map<string, number>();

  const note = (observation: string) => {
    const { thing, kind, places } = goal!;
    const went = /^you are at (\w+) , beyond is \w+ , (.*)$/.exec(observation);
    if (went) [at, closed] = [went[1], went[2] === "it is closed"];
    if (observation.startsWith("you open")) closed = false;
    if (at !== null && at === places[pointer] && !closed) {
      pointer = (pointer + 1) % places.length;
    }
    const sight = /you see (.*)$/.exec(observation);
    if (sight) {
      const objects = sight[1].split(" ");
      if (at !== kind) seen.set(at!, count(objects, thing));
      if (objects.includes("lamp")) lamp = at;
    }
    const verb = /^you (\w+) (\w+)$/.exec(observation)?.[1];
    if (verb === "take") {
      held = true;
      seen.set(at!, seen.get(at!)! - 1);
    } else if (verb === "put") {
      held = false;
      done++;
    } else if (verb !== undefined && verb in CHANGES) changed = true;
  };

  return ({ header, observation }) => {
    goal ??= readTask(header);
    note(observation);
    const { family, thing, kind, places } = goal;
    const known = [...seen].find(([, number]) => number > 0)?.[0] ?? null;
    const searching = held
      ? family === "look" && lamp === null
      : known === null;
    // What has to be kept in mind beyond the next turn.
    const memory = [
      ...(done > 0 ? ["one done ,"] : []),
      ...(family === "look" && lamp !== null ? [`lamp at ${lamp} ,`] : []),
    ].join(" ");
    const long = searching || family === "pick two" || family === "look";
    const state = isChange(family) && changed
      ? `${CHANGES[family].state} `
      : "";
    const say = (what: keyof typeof SAY, rest: string, action: string) => {
      const words = [
        memory,
        held ? `have ${state}${thing}` : `want ${thing}`,
        `${pick(SAY[what], next)}${rest}`,
        long ? `, next ${places[pointer]}` : "",
      ];
      return { reasoning: words.filter(Boolean).join(" "), action };
    };
    const go = (what: keyof typeof SAY, place: string) =>
      at === place && closed
        ? say("open", "", `open ${place}`)
        : say(what, ` ${place}`, `go to ${place}`);

    if (searching) {
      if (at === places[pointer] && closed) return go("open", at);
      if (next() < detours) {
        const place = pick(places.filter((p) => p !== at), next);
        const { reasoning } = say("search", ` , first ${place}`, "");
        return { reasoning, action: `go to ${place}` };
      }
      return say("search", "", `go to ${places[pointer]}`);
    }
    if (!held) {
      return at === known && !closed
        ? say("take", "", `take ${thing} from ${known}`)
        : go("recall", known!);
    }
    if (family === "look") {
      return at === lamp ? say("lamp", "", "use lamp") : go("bring", lamp!);
    }
    if (isChange(family) && !changed) {
      const { at: station, state } = CHANGES[family];
      return at === station
        ? say("change", ` ${state}`, `${family} ${thing} with ${station}`)
        : say("bring", ` ${station}`, `go to ${station}`);
    }
    return at === kind && !closed
      ? say("put", "", `put ${thing} in ${kind}`)
      : go("bring", kind!);
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
      "you are at see nothing happens beyond it is closed the middle of a room ,",
      "one done have want next first",
      Object.values(SAY).flat().join(" "),
    ],
  };
}
