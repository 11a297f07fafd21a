//! How a program ended: a Kubernetes `Status` as JSON, on the error stream.

use serde_json::{Value, json};

/// How a program ended.
pub fn of_exit(code: i32) -> Vec<u8> {
    if code == 0 {
        return bytes(&json!({"metadata": {}, "status": "Success"}));
    }
    bytes(&json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}
    }))
}

/// It did not run.
pub fn failure(why: &str) -> Vec<u8> {
    bytes(&json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {why}"), "details": {"causes": [{"message": why}]}
    }))
}

fn bytes(status: &Value) -> Vec<u8> {
    status.to_string().into_bytes()
}
