// The access token: asked for where the service requires one, stored for this tab only, removed at a click.

import { byId } from "./dom.js";
import { token } from "./service.js";

const form = byId("access");
const field = byId("token");
const message = byId("access-message");

// onChange: called when the token was changed or removed.
export function guard(onChange) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = field.value.trim().replace(/^Bearer\s+/i, "");
    if (!/^[\x21-\x7e]+$/.test(given)) {
      message.textContent = "A token has letters, digits, dashes and dots, and no spaces.";
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

// The service refused: ask for a token. Refusals for other reasons change nothing.
export function refused({ status }) {
  if (status !== 401 && status !== 403) return;
  const words = {
    401: "This service does not take the token: it may have expired. Give another one.",
    403: "The token is valid, but not for predictions. Give another one.",
  };
  message.textContent = token.get() ? words[status] : "This service answers those who have a token.";
  field.setAttribute("aria-invalid", token.get() !== null);
  form.hidden = false;
  byId("known").hidden = true;
}

// The service answered, with or without a token.
export function accepted() {
  const hadFocus = form.contains(document.activeElement);
  form.hidden = true;
  field.removeAttribute("aria-invalid");
  byId("known").hidden = token.get() === null;
  if (hadFocus) byId("file").focus();
}
