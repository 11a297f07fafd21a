//! JSON Web Tokens that this process signs, and the key set that verifies them.
//!
//! The key (ECDSA, P-256) is generated when it is first needed, is the same for all tokens of the process, and is never written
//! anywhere. Manifests refer to the key set as `{run.jwks}`.
//!
//! RFC 7515 (the compact form), RFC 7517 (key sets), RFC 7518 section 3.4 (`ES256`), RFC 7519 (claims).

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Map, Value, json};
use thiserror::Error;

/// What stands for the key set in manifests.
pub const JWKS: &str = "{run.jwks}";

/// The id of the key.
const KEY_ID: &str = "meshproof";

/// The system's random numbers are not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no key for tokens can be generated: the system provides no random numbers")]
pub struct NoKey;

static KEY: LazyLock<Result<EcdsaKeyPair, NoKey>> = LazyLock::new(|| generate().ok_or(NoKey));

fn generate() -> Option<EcdsaKeyPair> {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).ok()?;
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).ok()
}

fn key() -> Result<&'static EcdsaKeyPair, NoKey> {
    KEY.as_ref().map_err(|error| *error)
}

/// The key set, as `jwks` of a RequestAuthentication takes it.
///
/// # Errors
/// [`NoKey`].
pub fn jwks() -> Result<String, NoKey> {
    // An uncompressed point: 4, x, y (SEC 1, 2.3.3).
    let point = key()?.public_key().as_ref();
    let (x, y) = point.get(1..).and_then(|rest| rest.split_at_checked(32)).ok_or(NoKey)?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let key = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": x, "y": y });
    Ok(json!({ "keys": [key] }).to_string())
}

/// A token with these claims.
///
/// # Errors
/// [`NoKey`].
pub fn sign(claims: &Map<String, Value>) -> Result<String, NoKey> {
    let header = json!({ "alg": "ES256", "kid": KEY_ID, "typ": "JWT" }).to_string();
    let claims = serde_json::to_vec(claims).map_err(|_| NoKey)?;
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = key()?.sign(&SystemRandom::new(), text.as_bytes()).map_err(|_| NoKey)?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Replaces [`JWKS`] in every text of a value.
///
/// # Errors
/// [`NoKey`].
pub fn fill_in(value: &mut Value) -> Result<(), NoKey> {
    match value {
        Value::String(text) if text.contains(JWKS) => *text = text.replace(JWKS, &jwks()?),
        Value::Array(items) => items.iter_mut().try_for_each(fill_in)?,
        Value::Object(fields) => fields.values_mut().try_for_each(fill_in)?,
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn a_token_is_verified_by_the_key_set_and_by_no_other_text() {
        let claims = json!({ "iss": "issuer", "groups": ["a"] });
        let token = sign(claims.as_object().unwrap()).unwrap();
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let (text, signature) = token.rsplit_once('.').unwrap();
        let (header, payload) = text.split_once('.').unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&decoded(header)).unwrap()["alg"], "ES256");
        assert_eq!(serde_json::from_slice::<Value>(&decoded(payload)).unwrap(), claims);
        let keys: Value = serde_json::from_str(&jwks().unwrap()).unwrap();
        let coordinate = |name: &str| decoded(keys["keys"][0][name].as_str().unwrap());
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point);
        assert!(key.verify(text.as_bytes(), &decoded(signature)).is_ok());
        assert!(key.verify(header.as_bytes(), &decoded(signature)).is_err());
    }

    #[test]
    fn the_key_set_is_filled_in_wherever_it_is_written() {
        let mut value = json!({ "spec": { "jwtRules": [{ "issuer": "a", "jwks": "{run.jwks}" }] } });
        fill_in(&mut value).unwrap();
        assert_eq!(value["spec"]["jwtRules"][0], json!({ "issuer": "a", "jwks": jwks().unwrap() }));
    }
}
