//! Takes private keys, tokens and passwords out of everything that a bundle or a capsule holds.
//!
//! Two nets: [`object`] knows where Kubernetes, kubeconfigs and Envoy keep secrets (and leaves certificates, which are public
//! and show whose root is whose), and [`text`] knows what secrets look like
//! wherever they are: PEM keys, JSON web tokens, both of them again inside base64, and values behind names such as `token`.
//! Every file of a bundle passes through the second one.

use k8s_openapi::ByteString;
use serde_json::Value;

/// What replaces a secret.
pub const REDACTED: &str = "[redacted]";

/// Shorter words behind `token:` or `password:` are taken for words.
const SHORTEST_SECRET: usize = 12;

/// Shorter base64 holds neither a key nor a token.
const SHORTEST_ENCODED: usize = 64;

/// Secrets inside base64 inside base64 (a kubeconfig in a Secret holds its key in base64): deeper is not looked.
const LAYERS: usize = 3;

/// Names whose values are secret end in one of these, in the spelling without `-`, `_` and capitals: `DB_PASSWORD`,
/// `access-token`, `clientSecret`.
const SECRET_NAMES: &[&str] =
    &["token", "bearer", "password", "passwd", "privatekey", "apikey", "accesskey", "clientkeydata", "clientsecret"];

/// Every name in [`SECRET_NAMES`] holds one of these, as it is written.
const PARTS_OF_NAMES: &[&str] = &["token", "bearer", "password", "passwd", "key", "secret"];

/// The header whose value is a scheme and a secret (RFC 9110, 11.6.2).
const AUTHORIZATION: &str = "authorization";

/// Takes secrets out of a value by where they are: the data of Kubernetes Secrets, values whose names say that they are
/// secret (`token`, `private_key`), and copies of either that `kubectl apply` leaves in an annotation.
pub fn object(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("kind").and_then(Value::as_str) == Some("Secret") {
                for part in ["data", "stringData"] {
                    if let Some(Value::Object(data)) = fields.get_mut(part) {
                        data.values_mut().filter(|value| !is_certificate(value)).for_each(blank);
                    }
                }
            }
            // A variable of a container's environment, a header that a proxy adds: its name is beside it.
            let named = ["name", "key"].iter().filter_map(|part| fields.get(*part)?.as_str()).any(is_secret_name);
            if named && let Some(value @ Value::String(_)) = fields.get_mut("value") {
                blank(value);
            }
            for (name, value) in fields.iter_mut() {
                // A projected volume says for whom a token is, and where it is mounted; the token is not in it.
                let says_where = name == "serviceAccountToken" && value.is_object();
                if name == "kubectl.kubernetes.io/last-applied-configuration"
                    || is_secret_name(name) && !value.is_null() && !says_where
                {
                    blank(value);
                } else {
                    object(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(object),
        _ => {}
    }
}

/// Whether a value of a Secret is one or more certificates and nothing else.
fn is_certificate(value: &Value) -> bool {
    let Ok(ByteString(bytes)) = serde_json::from_value(value.clone()) else { return false };
    String::from_utf8(bytes).is_ok_and(|text| text.starts_with("-----BEGIN CERTIFICATE-----") && !holds_secret(&text))
}

/// Blanks all texts in a value; its shape stays, so that one sees what was there.
fn blank(value: &mut Value) {
    match value {
        Value::String(text) => REDACTED.clone_into(text),
        Value::Object(fields) => fields.values_mut().for_each(blank),
        Value::Array(items) => items.iter_mut().for_each(blank),
        _ => {}
    }
}

fn is_secret_name(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect();
    plain == AUTHORIZATION || SECRET_NAMES.iter().any(|secret| plain.ends_with(secret))
}

/// Takes secrets out of a text by what they look like.
pub fn text(text: &str) -> String {
    let text = pem_keys(text);
    let text = tokens(&text);
    let text = encoded(&text);
    named(&text)
}

/// Whether a text holds a secret.
pub fn holds_secret(text: &str) -> bool {
    self::text(text) != text
}

/// `-----BEGIN … PRIVATE KEY-----` to its end, or to the end of the text where it was cut short. Line breaks may be written as `\n`.
fn pem_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let label = &rest[at + BEGIN.len()..];
        let Some(label_end) = label.find("-----").filter(|end| label[..*end].ends_with("PRIVATE KEY") && *end < 40)
        else {
            out.push_str(&rest[..at + BEGIN.len()]);
            rest = label;
            continue;
        };
        out.push_str(&rest[..at]);
        out.push_str(REDACTED);
        let end = format!("-----END {}-----", &label[..label_end]);
        rest = label.find(&end).map_or("", |found| &label[found + end.len()..]);
    }
    out + rest
}

/// `eyJ….….…`: a JSON web token. Its first part is base64 of `{"`.
fn tokens(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let part = |text: &str| text.find(|c| !is_part(c)).unwrap_or(text.len());
    let token = |text: &str| {
        let first = part(text);
        let second = text.get(first..)?.strip_prefix('.').map(part).filter(|n| *n > 8)?;
        let third = text.get(first + 1 + second..)?.strip_prefix('.').map(part).filter(|n| *n > 8)?;
        Some(first + second + third + 2)
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("eyJ") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match token(rest) {
            Some(length) => {
                out.push_str(REDACTED);
                rest = &rest[length..];
            }
            None => {
                out.push_str("eyJ");
                rest = &rest["eyJ".len()..];
            }
        }
    }
    out + rest
}

/// Base64 that holds a private key or a token.
fn encoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    // A loop over bytes, for megabytes pass through here: base64 and what is around it are ASCII.
    while at < bytes.len() {
        let start = at;
        while at < bytes.len() && IS_BASE64[bytes[at] as usize] {
            at += 1;
        }
        if at - start >= SHORTEST_ENCODED {
            let word = &text[start..at];
            // `name=` ahead of it is no part of it.
            let own = word.trim_end_matches('=').rfind('=').map_or(0, |equals| equals + 1);
            if hides_secret(&word[own..], LAYERS) {
                out.push_str(&text[copied..start + own]);
                out.push_str(REDACTED);
                copied = at;
            }
        }
        at += 1;
    }
    out + &text[copied..]
}

const IS_BASE64: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'+' | b'/' | b'=');
        byte += 1;
    }
    table
};

fn hides_secret(word: &str, layers: usize) -> bool {
    if word.len() < SHORTEST_ENCODED || layers == 0 {
        return false;
    }
    // Cut short, it may end in the middle of a group of four.
    let whole = &word[..word.len() / 4 * 4];
    let Ok(ByteString(bytes)) = serde_json::from_value(Value::from(whole)) else { return false };
    // What decodes to no text is no PEM and no token (a certificate's DER, a hash).
    let Ok(inner) = String::from_utf8(bytes) else { return false };
    pem_keys(&inner) != inner
        || tokens(&inner) != inner
        || named(&inner) != inner
        || inner
            .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')))
            .any(|w| hides_secret(w, layers - 1))
}

/// Values behind secret names: `token: …`, `"token": "…"`, `--password=…`, `Bearer …`.
fn named(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    // Capitals do not move bytes.
    let small = text.to_ascii_lowercase();
    let mut places: Vec<usize> = PARTS_OF_NAMES
        .iter()
        .chain([&AUTHORIZATION])
        .flat_map(|part| small.match_indices(part).map(|(at, _)| at))
        .collect();
    places.sort_unstable();
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut seen) = (0, 0);
    for place in places {
        if place < seen {
            continue;
        }
        let start = text[seen..place]
            .rfind(|c| !is_name(c))
            .map_or(seen, |before| seen + before + char_length(&text[seen + before..]));
        let end = text[place..].find(|c| !is_name(c)).map_or(text.len(), |length| place + length);
        seen = end;
        let (name, after) = (&text[start..end], &text[end..]);
        if !is_secret_name(name) {
            continue;
        }
        let mut gap = after.find(|c| !matches!(c, '"' | '\'' | ':' | '=' | ' ' | '\\')).unwrap_or(after.len());
        if name.eq_ignore_ascii_case(AUTHORIZATION) && after[..gap].contains([':', '=']) {
            gap += scheme(&after[gap..]);
        }
        let value = &after[gap..];
        let length = value
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}' | '\\'))
            .unwrap_or(value.len());
        let joined = after[..gap].contains([':', '=']) || gap > 0 && name.eq_ignore_ascii_case("bearer");
        // A path says where a secret is, not what it is.
        if joined && length >= SHORTEST_SECRET && !value.starts_with('/') && !value.starts_with(REDACTED) {
            out.push_str(&text[copied..end + gap]);
            out.push_str(REDACTED);
            copied = end + gap + length;
            seen = copied;
        }
    }
    out + &text[copied..]
}

/// The length of `Basic ` and the like.
fn scheme(value: &str) -> usize {
    let word = value.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(0);
    let spaces = value[word..].find(|c| c != ' ').unwrap_or(0);
    if spaces == 0 { 0 } else { word + spaces }
}

fn char_length(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    const BODY: &str = "MHcCAQEEIJkV0vC0aQz1yq0u4T3b8Q9x7WmT5cJrXk2sP6nLh4GdoAoGCCqGSM49";

    fn key() -> String {
        format!("-----BEGIN EC PRIVATE KEY-----\n{BODY}\n-----END EC PRIVATE KEY-----\n")
    }

    fn base64(text: &str) -> String {
        serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap().as_str().unwrap().to_owned()
    }

    fn jwt() -> String {
        format!(
            "{}.{}.c2lnbmF0dXJlLXNpZ25hdHVyZQ",
            base64(r#"{"alg":"RS256","kid":"1"}"#).trim_end_matches('='),
            base64(r#"{"iss":"kubernetes"}"#).trim_end_matches('=')
        )
    }

    /// What a secret is hidden in, and the words that must not be there afterwards.
    #[rstest]
    #[case::a_key(format!("before {} after", key()), "before [redacted]\n after")]
    #[case::a_key_in_json(json!({ "k": key() }).to_string(), r#"{"k":"[redacted]\n"}"#)]
    #[case::a_key_cut_short(key()[..60].to_owned(), "[redacted]")]
    #[case::a_key_in_base64(format!("ca-key.pem: {}", base64(&key())), "ca-key.pem: [redacted]")]
    #[case::a_key_in_base64_behind_a_flag(format!("--key={}", base64(&key())), "--key=[redacted]")]
    #[case::a_kubeconfig(base64(&format!("users: [{{client-key-data: {}}}]", base64(&key()))), "[redacted]")]
    #[case::a_token(format!("Authorization: Bearer {}", jwt()), "Authorization: Bearer [redacted]")]
    #[case::a_token_in_a_url(format!("https://a/b?x={}&y=1", jwt()), "https://a/b?x=[redacted]&y=1")]
    #[case::a_token_in_base64(format!("\"token\":\"{}\"", base64(&jwt())), "\"token\":\"[redacted]\"")]
    #[case::an_opaque_token("token: 0123456789abcdef".into(), "token: [redacted]")]
    #[case::an_escaped_one(r#"{\"token\":\"0123456789abcdef\"}"#.into(), r#"{\"token\":\"[redacted]\"}"#)]
    #[case::a_password_of_something("DB_PASSWORD=correcthorsebattery".into(), "DB_PASSWORD=[redacted]")]
    #[case::a_scheme("-H 'Authorization: Basic dXNlcjpwYXNzd29yZA=='".into(), "-H 'Authorization: Basic [redacted]'")]
    #[case::a_header_of_a_scenario("authorization: Bearer abcdefghijklmnop".into(), "authorization: Bearer [redacted]")]
    #[case::a_password("--password=correcthorsebattery -v".into(), "--password=[redacted] -v")]
    fn secrets_go_wherever_they_are(#[case] given: String, #[case] expected: &str) {
        assert_eq!(text(&given), expected);
        assert!(holds_secret(&given) && !holds_secret(expected), "what is redacted stays as it is");
    }

    #[rstest]
    #[case("-----BEGIN CERTIFICATE-----\nMIIBhzCCAS6gAwIBAgIUUn2y\n-----END CERTIFICATE-----")]
    #[case("token: absent")]
    #[case("token authentication failed")]
    #[case("--token-auth-file=/var/run/tokens.csv, token: /var/run/secrets/tokens/istio-token")]
    #[case("eyJ is how a token begins, eyJ.a.b is none")]
    #[case(
        "outbound|5000|v2|helloworld.app1.svc.cluster.local sha256:4a5b6c7d8e9f00112233445566778899aabbccddeeff00112233445566778899"
    )]
    fn what_is_no_secret_stays(#[case] given: &str) {
        assert_eq!(text(given), given);
    }

    #[test]
    fn certificates_in_base64_stay() {
        let certificate = base64(&format!("-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----\n"));
        assert_eq!(text(&certificate), certificate);
        let mut secret = json!({"kind": "Secret", "data": {"root-cert.pem": certificate, "both": base64(&format!("-----BEGIN CERTIFICATE-----\n{}", key()))}});
        object(&mut secret);
        assert_eq!(secret["data"], json!({"root-cert.pem": certificate, "both": "[redacted]"}));
    }

    #[test]
    fn objects_lose_what_they_must_not_show_and_keep_their_shape() {
        let last = "kubectl.kubernetes.io/last-applied-configuration";
        let mut value = json!({"kind": "List", "items": [
            {"kind": "Secret", "metadata": {"name": "cacerts", "annotations": {last: "{\"data\":{\"a\":\"short\"}}"}},
             "data": {"ca-key.pem": "short", "tls.crt": "short"}, "stringData": {"p": "short"}},
            {"kind": "ConfigMap", "data": {"mesh": "kept"}},
            {"tls_certificate": {"private_key": {"inline_bytes": "short"}, "certificate_chain": {"inline_bytes": "kept"}}},
            {"env": [{"name": "DB_PASSWORD", "value": "short"}, {"name": "MODE", "value": "kept"}], "automountServiceAccountToken": true},
            {"sources": [{"serviceAccountToken": {"audience": "istio-ca", "path": "istio-token"}}], "serviceAccountToken": "short"},
            {"users": [{"user": {"client-key-data": "short", "token": "short"}}]}]});
        object(&mut value);
        assert_eq!(
            value,
            json!({"kind": "List", "items": [
            {"kind": "Secret", "metadata": {"name": "cacerts", "annotations": {last: "[redacted]"}},
             "data": {"ca-key.pem": "[redacted]", "tls.crt": "[redacted]"}, "stringData": {"p": "[redacted]"}},
            {"kind": "ConfigMap", "data": {"mesh": "kept"}},
            {"tls_certificate": {"private_key": {"inline_bytes": "[redacted]"}, "certificate_chain": {"inline_bytes": "kept"}}},
            {"env": [{"name": "DB_PASSWORD", "value": "[redacted]"}, {"name": "MODE", "value": "kept"}], "automountServiceAccountToken": true},
            {"sources": [{"serviceAccountToken": {"audience": "istio-ca", "path": "istio-token"}}], "serviceAccountToken": "[redacted]"},
            {"users": [{"user": {"client-key-data": "[redacted]", "token": "[redacted]"}}]}]})
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_it_and_twice_is_once(given in "(token|eyJ|-----BEGIN |PRIVATE KEY-----|[a-zA-Z0-9+/=:. \"\\\\ü\n]{0,70}){0,12}") {
            let once = text(&given);
            prop_assert_eq!(text(&once), once);
        }

        #[test]
        fn a_key_never_survives(before in "[ -~\n]{0,40}", after in "[ -~\n]{0,40}") {
            let given = format!("{before}\n{}{after} {}", key(), base64(&key()));
            let out = text(&given);
            prop_assert!(!out.contains(BODY) && !out.contains(&base64(&key())[60..]), "{}", out);
        }
    }
}
