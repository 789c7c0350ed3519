// A certified OpenID provider (npm oidc-provider) for tests: JWT and opaque access tokens, DPoP,
// private_key_jwt, introspection (plain and signed), revocation. argv: PORT CONFIG-JSON
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [port, file] = [Number(process.argv[2]), process.argv[3]];
const settings = JSON.parse(readFileSync(file, "utf8"));
const require = createRequire(pathToFileURL(settings.modules + "/"));
const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const issuer = `http://127.0.0.1:${port}`;
const formats = { [settings.gate]: "jwt", [settings.opaque]: "opaque" };

const provider = new Provider(issuer, {
  clients: settings.clients,
  jwks: { keys: settings.keys },
  clientDefaults: { id_token_signed_response_alg: "ES256", introspection_signed_response_alg: "ES256" },
  extraTokenClaims: (_ctx, token) => settings.extra[token.clientId],
  enabledJWA: { dPoPSigningAlgValues: ["ES256", "EdDSA"] },
  features: {
    devInteractions: { enabled: true },
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
const server = provider.listen(port, "127.0.0.1", () => process.stdout.write("ready\n"));
process.on("SIGTERM", () => { server.closeAllConnections(); server.close(() => process.exit(0)); });
