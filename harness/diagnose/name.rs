//! The service's name resolves in the caller's cluster.

use super::RungId;
use super::rung::{Broken, Climbed, Part};
use super::scene::Scene;
use crate::probe::Outcome;

pub(super) async fn look(scene: &Scene<'_>) -> Climbed {
    let Some((service, namespace)) = &scene.service else {
        return Climbed::skipped(RungId::Name, format!("{} is no name of a cluster's service", scene.question.to.host));
    };
    let host = &scene.question.to.host;
    let home = scene.home();
    let command =
        scene.as_caller(&format!("curl -s -o /dev/null -w '%{{remote_ip}} %{{errormsg}}' {}", scene.question.to.url));
    let stub = match &home.service {
        Ok(Some(_)) => Some(true),
        Ok(None) => Some(false),
        Err(_) => None,
    };
    let unresolved = match scene.calls().await {
        Ok(seen) => Ok(seen.calls.iter().any(|call| call.outcome == Outcome::Unresolved)),
        Err(why) => Err(why.clone()),
    };
    let part = match (unresolved, stub) {
        (Ok(false), _) => Part::Holds(format!("{host} resolves in {}", home.name())),
        (Ok(true), Some(false)) => {
            let elsewhere = scene.others().find(|f| matches!(f.service, Ok(Some(_))));
            let there = elsewhere.map_or("no cluster", |f| f.name());
            let fix = match elsewhere {
                Some(facts) => format!(
                    "make namespace, service and service account in {} as well (a stub), or capture DNS in the caller's \
                     sidecar; the service: {}",
                    home.name(),
                    scene.kubectl(&facts.cluster, &format!("-n {namespace} get service {service} -o yaml"))
                ),
                None => format!("make the service {namespace}/{service}"),
            };
            Part::from(Broken {
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
        (Ok(true), _) => Part::from(Broken {
            expected: format!("{host} resolves in {}", home.name()),
            observed: format!(
                "it does not, though service {namespace}/{service} is there: the cluster's DNS does not answer"
            ),
            command: command.clone(),
            fix: scene.kubectl(&home.cluster, "-n kube-system get pods,endpointslices -l k8s-app=kube-dns"),
        }),
        (Err(why), _) => Part::Unseen(why),
    };
    Climbed { id: RungId::Name, expected: format!("{host} resolves"), command: Some(command), parts: vec![part] }
}
