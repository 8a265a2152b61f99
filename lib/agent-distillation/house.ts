/**
 * House: find things, change them and put them somewhere, in rooms that are described in words.
 *
 * In the manner of ALFWorld (Shridhar et al., arXiv:2010.03768), which cannot run here; families of tasks and verbs
 * are ALFWorld's as recalled, everything else is our own and far smaller: pick, pick two, look under a lamp, clean, heat, cool.
 *
 * Each place shows which one lies beyond it, so that one who goes on and on comes past all. One who seeks a
 * thing at a place is told whether it is there to be taken, besides what is seen: whether two words of a text are the
 * same is what small transformers learned last here, if at all, and the rest of the task does not depend on it.
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

function readTask(header: string): Goal {
  const task = /^Task: (.*)$/m.exec(header)?.[1] ?? "";
  const look = /^look at (\w+) under lamp$/.exec(task);
  if (look) return { family: "look", thing: look[1], kind: null };
  const put = /^put (?:(two|clean|hot|cool) )?(\w+) in (\w+)$/.exec(task);
  if (!put) {
    throw new SyntaxError(`Cannot read the task of a house: ${task}`);
  }
  const change = (Object.keys(CHANGES) as Change[])
    .find((name) => CHANGES[name].state === put[1]);
  const family = change ?? (put[1] === "two" ? "pick two" : "pick");
  return { family, thing: put[2], kind: put[3] as Kind };
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
      places.includes(kind) && heldOut(thing, kind) === (split === "unseen") &&
      !(isChange(family) && kind === CHANGES[family].at)
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
  const station = isChange(family) ? CHANGES[family].at : null;
  const away = places.filter((place) => place !== kind && place !== station);
  for (const place of shuffled(away, next).slice(0, needed)) {
    holds.get(place)!.push(thing);
  }
  const others = Object.keys(THINGS).filter((name) => name !== thing);
  for (const name of shuffled(others, next).slice(0, 5)) {
    holds.get(pick(places, next))!.push(name);
  }
  if (family === "look") {
    const flat = places.filter((place) =>
      !closes(place) && !holds.get(place)!.includes(thing)
    );
    holds.get(pick(flat, next))!.push("lamp");
  }
  const open = new Set(places.filter((place) => !closes(place)));
  let at: string | null = null;
  let held: string | null = null;
  /** What was done last to the thing of the task. */
  let changed: string | null = null;
  let looked = false;
  /** What the agent said last that it looks for. */
  let sought: string | null = null;
  const named = family === "look" ? [thing, "lamp"] : [thing];

  const sight = (place: string) => holds.get(place)!.join(" ") || "nothing";
  const beyond = (place: string) =>
    `beyond ${places[(places.indexOf(place) + 1) % places.length]}`;
  const view = (place: string) => {
    if (!open.has(place)) return `${beyond(place)} , closed`;
    const answer = sought === null
      ? ""
      : place !== kind && holds.get(place)!.includes(sought)
      ? ` , ${sought} here`
      : ` , no ${sought}`;
    return `${beyond(place)} , see ${sight(place)}${answer}`;
  };
  const succeeded = () =>
    family === "look" ? looked : count(holds.get(kind!)!, thing) >= needed &&
      (!isChange(family) || changed === family);

  const admissible = (): string[] => {
    const actions = places.flatMap((place) => [
      `go to ${place}`,
      ...named.map((object) => `seek ${object} at ${place}`),
    ]);
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
      case "seek":
        at = rest.at(-1)!;
        sought = verb === "seek" ? object : null;
        return `at ${at} , ${view(at)}`;
      case "open":
        open.add(at!);
        return `open ${at} , ${view(at!)}`;
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
    header: `Task: ${taskText(goal)}\n`,
    observation: `in a room , beyond ${places[0]}`,
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
  search: ["not here", "no luck", "nothing yet"],
  open: ["closed", "shut"],
  take: ["found it", "got it"],
  bring: ["bring to", "carry to"],
  change: ["make it", "get it"],
  put: ["put down", "this place"],
  lamp: ["use lamp", "light on"],
} as const;

/** Where a detour leads: places that every house has. */
const FAMILIAR = Object.values(CHANGES).map(({ at }) => at);

/**
 * An expert that goes from place to place and writes down all that it will need later: which place comes next,
 * where the lamp was, whether one thing of two is done, and how the thing in its hand was changed.
 */
function expert(
  key: Key,
  { detours = 0 }: { detours?: number } = {},
): Policy {
  const next = stream(fold(key, "house expert"));
  let goal: Goal | null = null;
  /** Where to search next, and whether the way there was the last thing done. */
  let ahead = "";
  let onWay = true;
  let at: string | null = null;
  let closed = false;
  let here = false;
  let held = false;
  let changed = false;
  let done = 0;
  let lamp: string | null = null;

  const note = (observation: string) => {
    const [what, beyond, view, answer] = observation.replace("beyond ", "")
      .split(" , ");
    const [verb, object] = what.split(" ");
    if (verb === "at") at = object;
    closed = view === "closed";
    here = answer?.endsWith("here") ?? false;
    if (beyond !== undefined && onWay && !closed) ahead = beyond;
    if (view?.split(" ").includes("lamp")) lamp = at;
    const deed = /^you (\w+)/.exec(observation)?.[1] ?? "";
    if (deed === "take") held = true;
    if (deed === "put") [held, done] = [false, done + 1];
    if (deed in CHANGES) changed = true;
  };

  return ({ header, observation }) => {
    goal ??= readTask(header);
    note(observation);
    onWay = false;
    const { family, thing, kind } = goal;
    const seek = (place: string) => `seek ${held ? "lamp" : thing} at ${place}`;
    const searching = !held || (family === "look" && lamp === null);
    const keepsWay = searching || (family === "pick two" && done === 0);
    const state = isChange(family) && changed
      ? `${CHANGES[family].state} `
      : "";
    const say = (what: keyof typeof SAY, rest: string, action: string) => {
      const words = [
        done > 0 ? "one done ," : "",
        family === "look" && lamp !== null ? `lamp at ${lamp} ,` : "",
        held ? `have ${state}${thing}` : `want ${thing}`,
        `${pick(SAY[what], next)}${rest}`,
        keepsWay ? `, next ${ahead}` : "",
      ];
      return { reasoning: words.filter(Boolean).join(" "), action };
    };
    const bring = (place: string) =>
      say("bring", ` ${place}`, `go to ${place}`);

    if (!held && here) return say("take", "", `take ${thing} from ${at}`);
    if (searching) {
      if (closed && at === ahead) {
        onWay = true;
        return say("open", "", `open ${at}`);
      }
      const first = pick(FAMILIAR.filter((place) => place !== at), next);
      if (next() < detours) {
        return say("search", ` , first ${first}`, seek(first));
      }
      onWay = true;
      return say("search", "", seek(ahead));
    }
    if (closed) return say("open", "", `open ${at}`);
    if (family === "look") {
      return at === lamp ? say("lamp", "", "use lamp") : bring(lamp!);
    }
    if (isChange(family) && !changed) {
      const { at: station, state } = CHANGES[family];
      return at === station
        ? say("change", ` ${state}`, `${family} ${thing} with ${station}`)
        : bring(station);
    }
    return at === kind
      ? say("put", "", `put ${thing} in ${kind}`)
      : bring(kind!);
  };
}

/** The world of rooms and things; see the head of this file. */
export function house(): Environment {
  return {
    name: "house",
    maxSteps: 32,
    reset,
    expert,
    vocabulary: () => [
      "Task: Reasoning: Action: Observation:",
      "put two clean hot cool look at under lamp in from with to go seek open take heat use",
      Object.keys(PLACES).join(" "),
      Object.keys(THINGS).join(" "),
      "you at see nothing happens beyond closed here no in a room ,",
      "one done have want next first",
      Object.values(SAY).flat().join(" "),
    ],
  };
}
