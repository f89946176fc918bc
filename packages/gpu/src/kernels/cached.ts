/** `make(key)`, made once per key. */
export function cached<T>(make: (...key: string[]) => T): (...key: string[]) => T {
  const made = new Map<string, T>();
  return (...key) => {
    const name = key.join("\n");
    let value = made.get(name);
    if (value === undefined) {
      value = make(...key);
      made.set(name, value);
    }
    return value;
  };
}
