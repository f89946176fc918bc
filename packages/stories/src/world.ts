/** What is always true of an animal; no two animals share all of it. */
export interface Animal {
  readonly sound: string;
  readonly home: string;
  readonly food: string;
  readonly colour: string;
  readonly move: string;
  readonly body: string;
}
export type Aspect = keyof Animal;

/** The things that a fact can be about. */
export const ASPECTS: readonly Aspect[] = ["sound", "home", "food", "colour", "move", "body"];

/** The animals of the world, by their word. */
export const ANIMALS: Readonly<Record<string, Animal>> = {
  cat: { sound: "meow", home: "house", food: "milk", colour: "black", move: "climb", body: "whiskers" },
  dog: { sound: "woof", home: "yard", food: "bones", colour: "brown", move: "run", body: "fur" },
  cow: { sound: "moo", home: "field", food: "grass", colour: "white", move: "walk", body: "horns" },
  duck: { sound: "quack", home: "pond", food: "bread", colour: "yellow", move: "swim", body: "feathers" },
  horse: { sound: "neigh", home: "stable", food: "hay", colour: "brown", move: "gallop", body: "hooves" },
  sheep: { sound: "baa", home: "hill", food: "clover", colour: "white", move: "walk", body: "wool" },
  pig: { sound: "oink", home: "barn", food: "corn", colour: "pink", move: "roll", body: "bristles" },
  bird: { sound: "tweet", home: "tree", food: "seeds", colour: "blue", move: "fly", body: "feathers" },
  frog: { sound: "croak", home: "swamp", food: "flies", colour: "green", move: "hop", body: "spots" },
  bee: { sound: "buzz", home: "hive", food: "honey", colour: "yellow", move: "fly", body: "stripes" },
  owl: { sound: "hoot", home: "forest", food: "beetles", colour: "grey", move: "glide", body: "talons" },
  mouse: { sound: "squeak", home: "hole", food: "cheese", colour: "grey", move: "run", body: "whiskers" },
  lion: { sound: "roar", home: "plain", food: "meat", colour: "golden", move: "leap", body: "claws" },
  wolf: { sound: "howl", home: "mountain", food: "meat", colour: "grey", move: "run", body: "fur" },
  snake: { sound: "hiss", home: "desert", food: "eggs", colour: "green", move: "crawl", body: "scales" },
  fish: { sound: "blub", home: "sea", food: "worms", colour: "silver", move: "swim", body: "fins" },
};

export const NAMES: readonly string[] = ["anna", "ben", "clara", "dan", "ella", "finn"];
export const FEELINGS: readonly string[] = ["happy", "sad", "hungry", "tired", "calm", "brave"];
export const TIMES: readonly string[] = ["today", "at night", "in spring", "every day"];
