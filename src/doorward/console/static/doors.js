// Enrol by link, open by link, sign in with a passkey. The token of a link stays out of every address.

const status = document.querySelector("#status");
const button = document.querySelector("[data-door]");
const token = location.hash.slice(1);
if (token) history.replaceState(null, "", location.pathname);

// Only our own pages for programs send people here to sign in and come back; no other address is followed.
const next = new URLSearchParams(location.search).get("next") ?? "";
const wanted = /^\/oauth\/(authorize|device)(\?[\x21-\x7e]*)?$/.test(next) ? next : "/";

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  if (answer.status === 204) return null;
  const content = await answer.json();
  if (!answer.ok) throw new Error([content.detail, content.hint].filter(Boolean).join(". "));
  return content;
}

const doors = {
  async enrol() {
    const options = await post("/enrol/options", { token });
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
    const credential = await navigator.credentials.create({ publicKey });
    await post("/enrol/finish", { token, credential: credential.toJSON() });
  },
  async "sign-in"() {
    const options = await post("/sign-in/options");
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
    const credential = await navigator.credentials.get({ publicKey });
    await post("/sign-in/finish", { credential: credential.toJSON() });
  },
  async open() {
    await post("/open/redeem", { token });
  },
};

async function attempt(work, control) {
  control.disabled = true;
  status.textContent = "";
  status.classList.remove("bad");
  try {
    await work();
  } catch (error) {
    status.classList.add("bad");
    status.textContent = error.name === "NotAllowedError" ? "The passkey was not used: cancelled, or it took too long." : error.message;
  } finally {
    control.disabled = false;
  }
}

button.addEventListener("click", () => attempt(async () => {
  await doors[button.dataset.door]();
  location.assign(wanted);
}, button));

const form = document.querySelector("[data-form]");
const app = document.querySelector("[data-app]");
let offered = null;

app?.addEventListener("toggle", () => {
  if (!app.open || offered || !token) return;
  attempt(async () => {
    offered = await post("/enrol/app", { token });
    const drawn = new DOMParser().parseFromString(offered.picture, "image/svg+xml").documentElement;
    document.querySelector("#picture").replaceChildren(drawn);
    document.querySelector("#secret").textContent = offered.secret;
    form.hidden = false;
  }, form.elements.code);
});

const forms = {
  async code(fields) {
    await post("/sign-in/code", { key: fields.key.trim(), code: fields.code.trim() });
    location.assign(wanted);
  },
  async app(fields) {
    const kept = await post("/enrol/app/finish", { token, secret: offered.secret, code: fields.code.trim() });
    form.hidden = true;
    document.querySelector("#picture").replaceChildren();
    document.querySelector("#codes pre").textContent = kept.recovery_codes.join("\n");
    document.querySelector("#codes").hidden = false;
  },
};

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => forms[form.dataset.form](Object.fromEntries(new FormData(form))), form.querySelector("button"));
});
if (button.dataset.door !== "sign-in" && !token) {
  button.disabled = true;
  status.classList.add("bad");
  status.textContent = "This address lacks the link's secret. Copy the whole link, to its last character.";
}
