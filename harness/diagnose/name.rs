//! The service's name resolves in the caller's cluster.

use super::rung::{Broken, Check, Checked};
use super::scene::Scene;
use crate::expect::Outcome;

/// How the name fared in the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolution {
    Resolved,
    /// There is no such name.
    Unknown,
    /// The resolver answered no call in time.
    Silent,
}

fn resolution<'a>(outcomes: impl Iterator<Item = &'a Outcome> + Clone) -> Resolution {
    let mut all = outcomes.clone();
    if all.clone().any(|o| *o == Outcome::Unresolved) {
        Resolution::Unknown
    } else if all.clone().next().is_some() && all.all(Outcome::is_silence_of_dns) {
        // Where one of them got past it, the others had a busy machine.
        Resolution::Silent
    } else {
        Resolution::Resolved
    }
}

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let Some((service, namespace)) = &scene.service else {
        return Checked::skipped(format!("{} is not the name of a cluster's service", scene.question.to.host));
    };
    let host = &scene.question.to.host;
    let home = scene.home();
    let command = scene.as_caller(&scene.call("-s -o /dev/null -w '%{remote_ip} %{errormsg}'"));
    let stub = match &home.service {
        Ok(Some(_)) => Some(true),
        Ok(None) => Some(false),
        Err(_) => None,
    };
    let seen = match scene.calls().await {
        Ok(seen) => Ok(resolution(seen.calls.iter().map(|call| &call.outcome))),
        Err(why) => Err(why.clone()),
    };
    let part = match (seen, stub) {
        (Ok(Resolution::Resolved), _) => Check::Holds(format!("{host} resolves in {}", home.name())),
        (Ok(Resolution::Unknown), Some(false)) => {
            let elsewhere = scene.others().find(|f| matches!(f.service, Ok(Some(_))));
            let there = elsewhere.map_or("no cluster", |f| f.name());
            let fix = match elsewhere {
                Some(facts) => format!(
                    "create namespace, service and service account in {} as well (a stub), or capture DNS in the caller's \
                     sidecar; the service: {}",
                    home.name(),
                    scene.kubectl(&facts.cluster, &format!("-n {namespace} get service {service} -o yaml"))
                ),
                None => format!("create the service {namespace}/{service}"),
            };
            Check::from(Broken {
                expected: format!("{host} resolves in {}, where the caller is", home.name()),
                observed: format!(
                    "it does not: {} has no service {namespace}/{service} ({there} has it), and names are looked up where \
                     the caller is",
                    home.name()
                ),
                command: command.clone(),
                fix,
            })
        }
        (Ok(resolution), _) => Check::from(Broken {
            expected: format!("{host} resolves in {}", home.name()),
            observed: match resolution {
                Resolution::Silent => "the cluster's DNS did not answer any of the calls in time".to_owned(),
                _ => format!(
                    "it does not, although service {namespace}/{service} exists: the cluster's DNS does not respond"
                ),
            },
            command: command.clone(),
            fix: scene.kubectl(&home.cluster, "-n kube-system get pods,endpointslices -l k8s-app=kube-dns"),
        }),
        (Err(why), _) => Check::Unseen(why),
    };
    Checked { expected: format!("{host} resolves"), command: Some(command), parts: vec![part] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::late(&[Outcome::TimedOut], Resolution::Resolved)]
    #[case::no_such_name(&[Outcome::TimedOut, Outcome::Unresolved], Resolution::Unknown)]
    #[case::never_answered(&[silent(), silent()], Resolution::Silent)]
    #[case::busy(&[silent(), Outcome::TimedOut], Resolution::Resolved)]
    fn what_calls_say_of_the_name(#[case] outcomes: &[Outcome], #[case] expected: Resolution) {
        assert_eq!(resolution(outcomes.iter()), expected);
    }

    fn silent() -> Outcome {
        Outcome::Failed("Resolving timed out after 1500 milliseconds".into())
    }
}
