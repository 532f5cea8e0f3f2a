// What the browser keeps for the page, or the page's own memory where the browser keeps nothing: all works, until it is closed.

/** The browser's storage of a name, "localStorage" or "sessionStorage"; one that forgets with the page where there is none. */
export function openStorage(name) {
  try {
    return isUsable(window[name]) ? window[name] : new MemoryStorage(); // to look at a blocked one is an error already
  } catch {
    return new MemoryStorage();
  }
}

/** Whether what is put into a storage is still there when the page is opened again. */
export function isLasting(storage) {
  return !(storage instanceof MemoryStorage);
}

/** Keeps something that may be lost where there is no room. */
export function remember(storage, name, value) {
  try {
    storage.setItem(name, value);
  } catch {
    // a full storage says so when a conversation is kept
  }
}

/** A full one is usable, for what lies in it; one that is empty and takes nothing is not. */
function isUsable(storage) {
  if (storage.length) return true;
  storage.setItem("llamita.probe", "");
  storage.removeItem("llamita.probe");
  return true;
}

/** The part of Storage's interface that the page uses. */
class MemoryStorage {
  #values = new Map();

  get length() {
    return this.#values.size;
  }

  key(index) {
    return [...this.#values.keys()][index] ?? null;
  }

  getItem(name) {
    return this.#values.get(name) ?? null;
  }

  setItem(name, value) {
    this.#values.set(name, String(value));
  }

  removeItem(name) {
    this.#values.delete(name);
  }
}
