// A certified OpenID provider (npm oidc-provider) for tests: JWT and opaque access tokens, DPoP,
// private_key_jwt, introspection (plain and signed), revocation. argv: PORT CONFIG-JSON
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [port, file] = [Number(process.argv[2]), process.argv[3]];
const settings = JSON.parse(readFileSync(file, "utf8"));
const require = createRequire(pathToFileURL(settings.modules + "/"));
const { default: Provider, interactionPolicy } = await import(pathToFileURL(require.resolve("oidc-provider")));
const issuer = `http://127.0.0.1:${port}`;
// Who is signed in too weakly for what a request asks signs in again (RFC 9470, 5).
const policy = interactionPolicy.base();
policy.get("login").checks.add(new interactionPolicy.Check("acr_not_met", "a stronger sign-in is asked for", (ctx) => {
  const wanted = (ctx.oidc.params.acr_values ?? "").split(" ").filter(Boolean);
  const met = wanted.length === 0 || wanted.includes(ctx.oidc.session.acr) || ctx.oidc.result?.login;
  return met ? interactionPolicy.Check.NO_NEED_TO_PROMPT : interactionPolicy.Check.REQUEST_PROMPT;
}));
const formats = { [settings.gate]: "jwt", [settings.opaque]: "opaque" };

const provider = new Provider(issuer, {
  clients: settings.clients,
  jwks: { keys: settings.keys },
  clientDefaults: { id_token_signed_response_alg: "ES256", introspection_signed_response_alg: "ES256" },
  // A person's token says how and when she signed in; another client's what the test gave it.
  extraTokenClaims: (ctx, token) => {
    const code = ctx.oidc.entities.AuthorizationCode;
    return code ? { acr: code.acr, amr: code.amr, auth_time: code.authTime } : settings.extra[token.clientId];
  },
  acrValues: ["aal1", "aal2"],
  interactions: { policy, url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  enabledJWA: { dPoPSigningAlgValues: ["ES256", "EdDSA"] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    jwtIntrospection: { enabled: true },
    revocation: { enabled: true, allowedPolicy: () => true },
    dPoP: { enabled: true, ...(settings.nonceSecret ? { nonceSecret: Buffer.from(settings.nonceSecret, "base64") } : {}) },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => settings.gate,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => ({
        scope: "use",
        audience: resource === settings.opaque ? settings.gate : resource,
        accessTokenFormat: formats[resource] ?? "jwt",
        accessTokenTTL: 600,
        jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
});
// Signing in: dana types her password, and her second factor where the request asks for more.
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith("/interaction/")) return next();
  const { params, prompt, session } = await provider.interactionDetails(ctx.req, ctx.res);
  if (prompt.name === "consent") {
    const grant = new provider.Grant({ clientId: params.client_id, accountId: session.accountId });
    grant.addOIDCScope("openid");
    grant.addResourceScope(settings.gate, "use");
    const consent = { grantId: await grant.save() };
    return await provider.interactionFinished(ctx.req, ctx.res, { consent }, { mergeWithLastSubmission: true });
  }
  const strong = (params.acr_values ?? "").split(" ").includes("aal2");
  const login = { accountId: "dana-1", acr: strong ? "aal2" : "aal1", amr: strong ? ["pwd", "otp", "mfa"] : ["pwd"] };
  await provider.interactionFinished(ctx.req, ctx.res, { login }, { mergeWithLastSubmission: false });
});
const server = provider.listen(port, "127.0.0.1", () => process.stdout.write("ready\n"));
process.on("SIGTERM", () => { server.closeAllConnections(); server.close(() => process.exit(0)); });
