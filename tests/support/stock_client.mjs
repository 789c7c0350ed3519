// A stock OAuth client (npm oauth4webapi) in front of the gateway: it follows what the challenges say and
// nothing else. argv: GATEWAY MODULES. Prints one JSON line: what happened, step by step.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [gateway, modules] = process.argv.slice(2);
const require = createRequire(pathToFileURL(modules + "/"));
const oauth = await import(pathToFileURL(require.resolve("oauth4webapi")));
const plain = { [oauth.allowInsecureRequests]: true };
const resource = new URL(`${gateway}/llm/v1/chat/completions`);
const question = { model: "m", messages: [{ role: "user", content: "hello" }] };
const json = new Headers({ "content-type": "application/json" });
const redirect = "http://127.0.0.1/callback";
const client = { client_id: "app" };
const steps = [];

const first = await fetch(resource, { method: "POST", headers: json, body: JSON.stringify(question) });
steps.push(first.status);
// RFC 9728: the challenge names the metadata, the metadata names who issues tokens.
const named = /resource_metadata="([^"]+)"/.exec(first.headers.get("www-authenticate"))[1];
const metadata = await oauth.processResourceDiscoveryResponse(
  new URL(`${gateway}/llm`), await oauth.resourceDiscoveryRequest(new URL(`${gateway}/llm`), plain));
if (named !== `${gateway}/.well-known/oauth-protected-resource/llm`) throw new Error(`other metadata: ${named}`);
const issuer = new URL(metadata.authorization_servers[0]);
const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, plain));
const key = await oauth.generateKeyPair("ES256");
const dpop = oauth.DPoP(client, key);

// A browser, as far as the provider needs one: cookies and redirects.
const jar = new Map();
async function browse(url) {
  for (let hop = 0; hop < 10; hop++) {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await fetch(url, { redirect: "manual", headers: { cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [pair] = line.split(";");
      jar.set(pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
    }
    const next = answer.headers.get("location");
    if (next === null) throw new Error(`${answer.status} ${await answer.text()}`);
    if (next.startsWith(redirect)) return new URL(next);
    url = new URL(next, url);
  }
  throw new Error("too many redirects");
}

async function signIn(wanted) {
  const verifier = oauth.generateRandomCodeVerifier();
  const url = new URL(server.authorization_endpoint);
  const asked = {
    client_id: client.client_id, redirect_uri: redirect, response_type: "code", scope: "openid use",
    resource: metadata.resource.replace(/\/llm$/, ""), code_challenge_method: "S256",
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), ...wanted,
  };
  for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value);
  const params = oauth.validateAuthResponse(server, client, await browse(url), oauth.expectNoState);
  const more = { ...plain, DPoP: dpop, additionalParameters: { resource: asked.resource } };
  const answer = await oauth.authorizationCodeGrantRequest(
    server, client, oauth.None(), params, redirect, verifier, more);
  return (await oauth.processAuthorizationCodeResponse(server, client, answer)).access_token;
}

async function ask(token) {
  const more = { ...plain, DPoP: dpop };
  const body = JSON.stringify(question);
  const once = () => oauth.protectedResourceRequest(token, "POST", resource, json, body, more);
  try {
    return await once();
  } catch (error) {
    // The library keeps the nonce it was given; the caller tries again.
    if (oauth.isDPoPNonceError(error)) { steps.push("nonce"); return await once(); }
    throw error;
  }
}

let token = await signIn({});
try {
  steps.push((await ask(token)).status);
} catch (error) {
  // RFC 9470: the challenge says how strong and how recent the sign-in must be.
  const [challenge] = error.cause;
  steps.push(challenge.parameters.error);
  const { acr_values, max_age } = challenge.parameters;
  token = await signIn({ acr_values, max_age });
  const answer = await ask(token);
  steps.push(answer.status, (await answer.json()).model);
}
process.stdout.write(JSON.stringify(steps) + "\n");
