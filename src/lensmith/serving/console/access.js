// The token: asked for where the service wants one, kept for this tab alone, forgotten at a click.

import { byId } from "./dom.js";
import { token } from "./service.js";

const form = byId("access");
const field = byId("token");
const said = byId("access-said");

// onChange: called when there is another token, or none any more.
export function guard(onChange) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = field.value.trim().replace(/^Bearer\s+/i, "");
    if (!/^[\x21-\x7e]+$/.test(given)) {
      said.textContent = "A token has letters, digits, dashes and dots, and no spaces.";
      field.setAttribute("aria-invalid", "true");
      field.focus();
      return;
    }
    token.set(given);
    field.value = "";
    onChange();
  });
  byId("forget").addEventListener("click", () => {
    token.forget();
    onChange();
  });
}

// The service refused: ask for a token. One that is not a matter of tokens leaves everything as it is.
export function refused({ status }) {
  if (status !== 401 && status !== 403) return;
  const words = {
    401: "This service does not take the token: it may have expired. Give another one.",
    403: "The token is valid, but not for predictions. Give another one.",
  };
  said.textContent = token.get() ? words[status] : "This service answers those who have a token.";
  field.setAttribute("aria-invalid", token.get() !== null);
  form.hidden = false;
  byId("known").hidden = true;
}

// The service answered, with the token or without one.
export function accepted() {
  const hadFocus = form.contains(document.activeElement);
  form.hidden = true;
  field.removeAttribute("aria-invalid");
  byId("known").hidden = token.get() === null;
  if (hadFocus) byId("file").focus();
}
