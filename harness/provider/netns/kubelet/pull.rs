//! Images that pods name: those of the supply, and all others from their registries.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use kube::runtime::events::EventType;

use super::images::{Image, ImageMap};
use super::run::{ContainerIndex, Run};
use super::status::Phase;
use crate::supply::containers::{ContainerImage, Store, StoreSettings};
use crate::wait;

/// Where images come from.
#[derive(Debug)]
pub struct Images {
    supplied: ImageMap,
    /// Or why there is none.
    store: Result<Store, String>,
}

impl Images {
    /// Those of the supply, and a store for others.
    pub fn new(supplied: ImageMap, store: &StoreSettings) -> Self {
        Self { supplied, store: Store::open(store).map_err(|e| e.to_string()) }
    }

    /// An image of the supply, whose tag does not matter, or one that was pulled before.
    fn present(&self, name: &str) -> Option<Image> {
        let pulled = || self.store.as_ref().ok()?.find(name).map(of_container);
        self.supplied.get(name).cloned().or_else(pulled)
    }

    fn is_supplied(&self, name: &str) -> bool {
        self.supplied.get(name).is_some()
    }
}

fn of_container(image: ContainerImage) -> Image {
    Image {
        files: Vec::new(),
        entrypoint: image.entrypoint,
        cmd: image.cmd,
        env: image.env,
        uid: image.uid,
        gid: image.gid,
        workdir: image.workdir,
        layers: image.layers,
    }
}

/// When an image is pulled that is here already (`imagePullPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

impl Policy {
    fn of(container: &Container) -> Self {
        match container.image_pull_policy.as_deref() {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            _ => Self::IfNotPresent,
        }
    }
}

/// The wait before an image is pulled again, as a kubelet's: 10 s, 20 s, … at most 5 min.
fn back_off(failures: u32) -> Duration {
    (Duration::from_secs(10) * 2u32.pow(failures.saturating_sub(1).min(5))).min(Duration::from_secs(300))
}

/// The image of a container: pulled if need be, again and again until it is here. The pod's status and events say why it is
/// not.
pub async fn image(run: &Run, place: ContainerIndex, container: &Container) -> Image {
    let images = &run.node.config.images;
    let name = container.image.as_deref().unwrap_or_default();
    let policy = Policy::of(container);
    let waiting = |reason: &str, message: String| {
        let reason = reason.to_owned();
        run.note(place, |c| c.phase = Phase::Waiting { reason, message: Some(message) });
    };
    let mut failures = 0;
    loop {
        if let Some(image) = images.present(name)
            && (policy != Policy::Always || images.is_supplied(name))
        {
            return image;
        }
        if policy == Policy::Never {
            let why = format!("Container image {name:?} is not present with pull policy of Never");
            run.event(EventType::Warning, "ErrImageNeverPull", why.clone()).await;
            waiting("ErrImageNeverPull", why);
            wait::pass(back_off(1)).await;
            continue;
        }
        run.event(EventType::Normal, "Pulling", format!("Pulling image {name:?}")).await;
        let pulled = match &images.store {
            Ok(store) => store.pull(name).await.map_err(|e| e.to_string()),
            Err(why) => Err(why.clone()),
        };
        let why = match pulled {
            Ok(image) => {
                run.event(EventType::Normal, "Pulled", format!("Successfully pulled image {name:?}")).await;
                return of_container(image);
            }
            Err(why) => format!("failed to pull image {name:?}: {why}"),
        };
        run.event(EventType::Warning, "Failed", why.clone()).await;
        waiting("ErrImagePull", why.clone());
        failures += 1;
        wait::pass(Duration::from_secs(1)).await;
        waiting("ImagePullBackOff", format!("Back-off pulling image {name:?}: {why}"));
        wait::pass(back_off(failures)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_that_fails_is_tried_less_and_less_often() {
        let waits: Vec<u64> = (1..8).map(|failures| back_off(failures).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }
}
