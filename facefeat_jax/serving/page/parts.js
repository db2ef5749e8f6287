// What all scripts of the pages share. Text is only ever set as text.

export function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const written = (name) => name.replaceAll("_", " ");

// What is not all is never 100%, what is not none never 0%.
export function percent(share) {
  const value = share > 0 && share < 1 ? Math.min(99.9, Math.max(0.1, 100 * share)) : 100 * share;
  return `${value.toFixed(1)}%`;
}
