//! The environment variables of a container, and `$(NAME)` in its command and arguments.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Service};

use super::facts::Facts;
use super::images::Image;
use super::objects::{Kind, Objects};

/// The variables that a container starts with: the image's, the services', `envFrom`, `env`; later ones win.
///
/// # Errors
/// What is missing or not understood, in the words of Kubernetes' kubelet where it has some.
pub fn variables(
    container: &Container,
    image: &Image,
    facts: &Facts,
    objects: &Objects,
    services: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let mut all: BTreeMap<String, String> = services.clone();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (kind, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(r), _) => (Kind::ConfigMap, &r.name, r.optional),
            (_, Some(r)) => (Kind::Secret, &r.name, r.optional),
            _ => continue,
        };
        match objects.get(kind, name) {
            Some(data) => {
                let texts = data.iter().map(|(key, value)| (format!("{prefix}{key}"), text(value)));
                all.extend(texts);
            }
            None if optional == Some(true) => {}
            None => return Err(format!("{kind} {name:?} not found")),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &all)),
            (None, None) => Some(String::new()),
            (None, Some(from)) => {
                if let Some(selector) = &from.field_ref {
                    Some(facts.field(selector)?)
                } else if let Some(selector) = &from.resource_field_ref {
                    Some(facts.resource(selector, Some(container))?)
                } else if let Some(r) = &from.config_map_key_ref {
                    key(objects, Kind::ConfigMap, &r.name, &r.key, r.optional)?
                } else if let Some(r) = &from.secret_key_ref {
                    key(objects, Kind::Secret, &r.name, &r.key, r.optional)?
                } else {
                    return Err(format!("env {}: valueFrom is empty", variable.name));
                }
            }
        };
        if let Some(value) = value {
            all.insert(variable.name.clone(), value);
        }
    }
    // What a container runtime adds, and the image's own, may be overridden by all of the above.
    let mut result: BTreeMap<String, String> = [
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME".to_owned(), "/".to_owned()),
        ("HOSTNAME".to_owned(), facts.hostname()),
    ]
    .into();
    result.extend(image.env.iter().cloned());
    result.extend(all);
    Ok(result)
}

fn key(objects: &Objects, kind: Kind, name: &str, key: &str, optional: Option<bool>) -> Result<Option<String>, String> {
    match objects.get(kind, name).map(|data| data.get(key)) {
        Some(Some(value)) => Ok(Some(text(value))),
        _ if optional == Some(true) => Ok(None),
        Some(None) => Err(format!("couldn't find key {key} in {kind} {name:?}")),
        None => Err(format!("{kind} {name:?} not found")),
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// Replaces `$(NAME)` by the variable's value. `$$` is a dollar sign; an unknown name stays as it is.
pub fn expand(input: &str, variables: &BTreeMap<String, String>) -> String {
    let mut output = String::new();
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        output.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            output.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match variables.get(name) {
                Some(value) => output.push_str(value),
                None => output.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            output.push('$');
        }
    }
    output.push_str(rest);
    output
}

/// The argument vector of a container.
///
/// # Errors
/// When neither the pod nor the image says what to run.
pub fn argv(container: &Container, image: &Image, variables: &BTreeMap<String, String>) -> Result<Vec<String>, String> {
    let given = |list: &Option<Vec<String>>| list.clone().filter(|l| !l.is_empty());
    let (command, args) = match (given(&container.command), given(&container.args)) {
        (Some(command), args) => (command, args.unwrap_or_default()),
        (None, Some(args)) => (image.entrypoint.clone(), args),
        (None, None) => (image.entrypoint.clone(), image.cmd.clone()),
    };
    let argv: Vec<String> = command.iter().chain(&args).map(|word| expand(word, variables)).collect();
    if argv.is_empty() {
        return Err("no command specified".into());
    }
    Ok(argv)
}

/// Variables for the services of the pod's namespace (`enableServiceLinks`) and for the API server.
pub fn of_services<'a>(
    namespace: &str,
    links: bool,
    services: impl IntoIterator<Item = &'a Service>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for service in services {
        let meta = &service.metadata;
        let (Some(name), Some(spec)) = (&meta.name, &service.spec) else { continue };
        let apiserver = meta.namespace.as_deref() == Some("default") && name == "kubernetes";
        let neighbour = links && meta.namespace.as_deref() == Some(namespace);
        if !apiserver && !neighbour {
            continue;
        }
        let Some(ip) = spec.cluster_ip.as_ref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        all.insert(format!("{prefix}_SERVICE_HOST"), ip.clone());
        all.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for port in ports.iter() {
            if let Some(name) = port.name.as_ref().filter(|n| !n.is_empty()) {
                let name = name.to_uppercase().replace('-', "_");
                all.insert(format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string());
            }
        }
        let url = |protocol: &str, port: i32| format!("{}://{ip}:{port}", protocol.to_lowercase());
        let protocol = |p: &Option<String>| p.clone().unwrap_or_else(|| "TCP".into());
        all.insert(format!("{prefix}_PORT"), url(&protocol(&first.protocol), first.port));
        for port in ports {
            let proto = protocol(&port.protocol);
            let name = format!("{prefix}_PORT_{}_{}", port.port, proto.to_uppercase());
            all.insert(name.clone(), url(&proto, port.port));
            all.insert(format!("{name}_PROTO"), proto.to_lowercase());
            all.insert(format!("{name}_PORT"), port.port.to_string());
            all.insert(format!("{name}_ADDR"), ip.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::netns::kubelet::facts::tests::facts;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case("plain", "plain")]
    #[case("$(A)-$(B)", "1-2")]
    #[case("$(NONE)", "$(NONE)")]
    #[case("$$(A)", "$(A)")]
    #[case("$A ${A} $(A", "$A ${A} $(A")]
    #[case("100$", "100$")]
    #[case("$()", "$()")]
    fn references_are_expanded_as_kubernetes_does(#[case] input: &str, #[case] expected: &str) {
        let variables = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())].into();
        assert_eq!(expand(input, &variables), expected);
    }

    fn objects() -> Objects {
        let data =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        Objects(
            [
                ((Kind::ConfigMap, "cm".to_owned()), data(&[("k", "v"), ("l", "w")])),
                ((Kind::Secret, "sec".to_owned()), data(&[("k", "hidden")])),
            ]
            .into(),
        )
    }

    fn of(container: Value) -> Result<BTreeMap<String, String>, String> {
        let mut container = container;
        container["name"] = json!("web");
        let container: Container = serde_json::from_value(container).unwrap();
        let image =
            Image { env: vec![("PATH".into(), "/image".into()), ("E".into(), "image".into())], ..Image::default() };
        variables(&container, &image, &facts(), &objects(), &[("S".to_owned(), "service".to_owned())].into())
    }

    #[rstest]
    #[case::image(json!({}), "PATH", Some("/image"))]
    #[case::image_overridden(json!({"env": [{"name": "E", "value": "pod"}]}), "E", Some("pod"))]
    #[case::service(json!({}), "S", Some("service"))]
    #[case::host_name(json!({}), "HOSTNAME", Some("web-1"))]
    #[case::earlier_variable(json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}]}), "B", Some("12"))]
    #[case::later_variable(json!({"env": [{"name": "B", "value": "$(A)2"}, {"name": "A", "value": "1"}]}), "B", Some("$(A)2"))]
    #[case::configmap(json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}), "A", Some("v"))]
    #[case::secret(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}}]}), "A", Some("hidden"))]
    #[case::optional_key(
        json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "x", "optional": true}}}]}), "A", None
    )]
    #[case::from(json!({"envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}]}), "P_l", Some("w"))]
    #[case::optional_from(json!({"envFrom": [{"configMapRef": {"name": "none", "optional": true}}]}), "S", Some("service"))]
    #[case::field(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}), "A", Some("10.10.0.5"))]
    #[case::resource(
        json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}), "A", Some("2")
    )]
    fn variables_come_from(#[case] container: Value, #[case] name: &str, #[case] expected: Option<&str>) {
        assert_eq!(of(container).unwrap().get(name).map(String::as_str), expected);
    }

    #[rstest]
    #[case(json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]}), "configmap \"no\" not found")]
    #[case(
        json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "x"}}}]}),
        "couldn't find key x in secret \"sec\""
    )]
    #[case(json!({"envFrom": [{"secretRef": {"name": "no"}}]}), "secret \"no\" not found")]
    fn what_is_missing_is_named(#[case] container: Value, #[case] expected: &str) {
        assert_eq!(of(container).unwrap_err(), expected);
    }

    #[rstest]
    #[case::image_alone(json!({}), &["/entry", "cmd"])]
    #[case::args(json!({"args": ["a"]}), &["/entry", "a"])]
    #[case::command(json!({"command": ["/c"]}), &["/c"])]
    #[case::both(json!({"command": ["/c"], "args": ["$(A)"]}), &["/c", "1"])]
    fn what_is_run(#[case] container: Value, #[case] expected: &[&str]) {
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).unwrap();
        let image = Image { entrypoint: vec!["/entry".into()], cmd: vec!["cmd".into()], ..Image::default() };
        assert_eq!(argv(&container, &image, &[("A".to_owned(), "1".to_owned())].into()).unwrap(), expected);
    }

    #[test]
    fn services_become_variables() {
        let service = |namespace: &str, name: &str, ip: &str, ports: Value| -> Service {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": ports}
            }))
            .unwrap()
        };
        let all = [
            service("default", "kubernetes", "10.96.0.1", json!([{"name": "https", "port": 443, "protocol": "TCP"}])),
            service("app1", "hello-world", "10.96.0.9", json!([{"port": 5000}])),
            service("app1", "headless", "None", json!([{"port": 1}])),
            service("other", "there", "10.96.0.10", json!([{"port": 1}])),
        ];
        let show = |links| {
            of_services("app1", links, &all).iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(show(true), @r"
        HELLO_WORLD_PORT=tcp://10.96.0.9:5000
        HELLO_WORLD_PORT_5000_TCP=tcp://10.96.0.9:5000
        HELLO_WORLD_PORT_5000_TCP_ADDR=10.96.0.9
        HELLO_WORLD_PORT_5000_TCP_PORT=5000
        HELLO_WORLD_PORT_5000_TCP_PROTO=tcp
        HELLO_WORLD_SERVICE_HOST=10.96.0.9
        HELLO_WORLD_SERVICE_PORT=5000
        KUBERNETES_PORT=tcp://10.96.0.1:443
        KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
        KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
        KUBERNETES_PORT_443_TCP_PORT=443
        KUBERNETES_PORT_443_TCP_PROTO=tcp
        KUBERNETES_SERVICE_HOST=10.96.0.1
        KUBERNETES_SERVICE_PORT=443
        KUBERNETES_SERVICE_PORT_HTTPS=443
        ");
        assert!(show(false).contains("KUBERNETES_SERVICE_HOST") && !show(false).contains("HELLO"));
    }
}
