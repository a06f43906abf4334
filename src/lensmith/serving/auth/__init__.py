"""Auth: tokens (JWT, JWKS), scopes, rate limit and quota of each caller, and the audit log of admin acts."""
