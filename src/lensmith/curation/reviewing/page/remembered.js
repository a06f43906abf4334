// Choices that the browser stores: the reviewer's name, and whether keys work everywhere.

export function store(name, value) {
  try {
    localStorage.setItem(`lensmith-review-${name}`, value);
  } catch { /* a browser that stores nothing */ }
}

export function stored(name) {
  try {
    return localStorage.getItem(`lensmith-review-${name}`) ?? "";
  } catch {
    return "";
  }
}
