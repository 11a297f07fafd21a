//! Does a proxy hold what istiod intends for it, from a push that is younger than istiod's reading of the change?

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::change::{DebugPage, Fate, Object};
use super::proxies::AffectedProxy;
use super::{GateError, ProxyReady};
use crate::observe::held::{Held, Intended, ResourceKind, Version, differences};
use crate::observe::istiod::{Connected, ControlPlane, short};
use crate::observe::{ObjectRef, envoy};

/// istiod makes no push of a change that means nothing to it (an annotation that it does not know). A change that it has read
/// and not pushed for this long is such a one.
const NO_PUSH: Duration = Duration::from_secs(3);

/// At least so many checks must have found the same push: each shows that istiod had time to run.
const CHECKS: u32 = 3;

/// A counter says that Envoy rejected something; its log is read for the words when this much time has passed
/// without an acknowledgement. (istiod 1.28 and newer report Envoy's words by themselves, at once.)
const SUSPICIOUS: Duration = Duration::from_secs(1);

/// What all proxies of one istiod are compared with.
pub(super) struct Wanted<'a> {
    pub plane: &'a ControlPlane,
    /// The objects that this istiod reads.
    pub objects: Vec<&'a Object>,
    /// Namespaces whose endpoints may change.
    pub endpoints: &'a BTreeSet<String>,
    /// Since when istiod has read the change.
    pub read: Instant,
    /// The newest push that any of its proxies was part of before the change.
    pub newest: Option<Version>,
    /// When the change was applied.
    pub started: Instant,
}

impl Wanted<'_> {
    /// How long no further push must follow. istiod gathers changes for `PILOT_DEBOUNCE_AFTER` before it pushes.
    fn quiet(&self) -> Duration {
        self.plane.debounce * 4 + Duration::from_millis(150)
    }

    fn changes_objects(&self) -> bool {
        self.objects.iter().any(|o| o.fate() != Fate::Same)
    }
}

/// What one proxy is missing; `None`: nothing, which is then noted.
pub(super) async fn check(
    proxy: &mut AffectedProxy,
    wanted: &Wanted<'_>,
    (istiod, connected): &(usize, Connected),
) -> Result<Option<String>, GateError> {
    rejected(proxy, connected)?;
    let intended = match wanted.plane.intended(*istiod, &connected.connection).await {
        Ok(intended) => intended,
        Err(error) => return Ok(Some(format!("istiod does not show the configuration it has for it: {error}"))),
    };
    if let Some(version) = intended.version.clone().or_else(|| connected.newest()) {
        match &mut proxy.version {
            Some((known, _, checks)) if *known == version => *checks += 1,
            other => *other = Some((version, Instant::now(), 1)),
        }
    }
    if let Some(missing) = not_pushed(proxy, wanted, &intended) {
        return Ok(Some(missing));
    }
    let waiting = connected.waiting();
    if wanted.changes_objects() && !waiting.is_empty() {
        if wanted.started.elapsed() > SUSPICIOUS {
            counted_rejection(proxy, wanted.started).await?;
        }
        return Ok(Some(format!("has not acknowledged {}", waiting.join(", "))));
    }
    let (held, refused) = match envoy::held(&proxy.admin).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Some(format!("its Envoy does not respond: {error}"))),
    };
    if let (Some(refused), true) = (refused.into_iter().next(), wanted.changes_objects()) {
        let kind = format!("listener {}", refused.name);
        return Err(GateError::Rejected { proxy: proxy.admin.place(), kind, words: refused.words });
    }
    let mut different = differences(&intended.held, &held);
    if !wanted.changes_objects() {
        // What else differs in a proxy (it rejects something, say) differed before.
        different.retain(|what| is_about(what, wanted.endpoints));
    }
    if !different.is_empty() {
        return Ok(Some(few(&different)));
    }
    let changed = if proxy.intended.is_some() { differences(&held, &proxy.held) } else { Vec::new() };
    proxy.ready.get_or_insert_with(|| ProxyReady {
        cluster: proxy.admin.cluster.name.clone(),
        pod: proxy.admin.pod.clone(),
        seconds: wanted.started.elapsed().as_secs_f64(),
        changed: changed.iter().map(|d| d.split(" (").next().unwrap_or_default().to_owned()).collect(),
    });
    Ok(None)
}

/// Whether a difference is about endpoints, or about a service of these namespaces.
fn is_about(difference: &str, namespaces: &BTreeSet<String>) -> bool {
    difference.starts_with("endpoints of ") || namespaces.iter().any(|ns| difference.contains(&format!(".{ns}.svc.")))
}

/// What istiod has read and not pushed yet, in words.
fn not_pushed(proxy: &AffectedProxy, wanted: &Wanted<'_>, intended: &Intended) -> Option<String> {
    let before = Before {
        version: proxy.intended.as_ref().and_then(|b| b.version.as_ref()).or(wanted.newest.as_ref()),
        held: proxy.intended.as_ref().map(|b| &b.held),
    };
    let read = wanted.read.elapsed();
    let same = proxy.version.as_ref().map_or((read, u32::MAX), |(_, since, checks)| (since.elapsed(), *checks));
    let settled = read.min(same.0) >= wanted.quiet() && same.1 >= CHECKS;
    let silent = read >= NO_PUSH;
    let objects = &wanted.objects;
    let missing = objects.iter().filter(|o| !pushed(o, objects, &before, intended, settled, silent));
    let missing: Vec<String> = missing.map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Some(format!("istiod has not pushed {}", missing.join(", ")));
    }
    // New endpoints may bring a push of more than endpoints: identities, listeners of headless services.
    let waits = !wanted.changes_objects() && !wanted.endpoints.is_empty() && !settled && !silent;
    waits.then(|| "istiod may still be pushing".to_owned())
}

/// What istiod intended for a proxy before the change.
struct Before<'a> {
    /// The push; of a proxy that was not connected then, the newest one of its istiod.
    version: Option<&'a Version>,
    /// The content; `None`: the proxy was not connected then.
    held: Option<&'a Held>,
}

/// Whether what istiod intends for a proxy already rests on the changed object.
fn pushed(object: &Object, all: &[&Object], before: &Before<'_>, now: &Intended, settled: bool, silent: bool) -> bool {
    if object.fate() == Fate::Same {
        return true;
    }
    if before.version.is_some() && now.version.as_ref() <= before.version {
        return silent;
    }
    if settled {
        return true;
    }
    if object.page != DebugPage::Config || !leaves_mark(&object.reference.kind) {
        return false;
    }
    let is = marks(&object.reference, &now.held);
    let Some(held) = before.held else {
        // Of a proxy that was not connected before only what did not exist then proves anything.
        return object.fate() == Fate::Created && !is.is_empty();
    };
    let was = marks(&object.reference, held);
    match object.fate() {
        Fate::Same => true,
        Fate::Created => was.is_empty() && !is.is_empty(),
        Fate::Deleted => !was.is_empty() && is.is_empty(),
        // What names it may name another object of the change as well, and differ because of that one.
        Fate::Changed => {
            let others = all.iter().filter(|o| o.fate() != Fate::Same && o.reference != object.reference);
            was != is && others.count() == 0
        }
    }
}

/// Kinds that istiod names in what it makes of them (`metadata.filter_metadata.istio.config`).
fn leaves_mark(kind: &str) -> bool {
    matches!(kind, "VirtualService" | "DestinationRule")
}

/// The resources that name the object, with their content.
fn marks(object: &ObjectRef, held: &Held) -> BTreeSet<(ResourceKind, String, String)> {
    let mut kebab = String::new();
    for (index, c) in object.kind.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    let path = format!("/namespaces/{}/{kebab}/{}", object.namespace, object.name);
    let naming = held.iter().filter(|(_, r)| r.made_from.iter().any(|p| p.ends_with(&path)));
    naming.map(|((kind, name), r)| (*kind, name.clone(), r.hash.clone())).collect()
}

/// The first few of many differences.
fn few(differences: &[String]) -> String {
    const FEW: usize = 4;
    let more = differences.len().saturating_sub(FEW);
    let shown = differences.iter().take(FEW).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// A rejection that istiod reports and that was not there before.
fn rejected(proxy: &AffectedProxy, connected: &Connected) -> Result<(), GateError> {
    for (name, sync) in &connected.sync {
        let known = proxy.errors.get(name).map_or("", String::as_str);
        if !sync.last_error.is_empty() && sync.last_error != known {
            let (kind, words) = (short(name).to_owned(), sync.last_error.clone());
            return Err(GateError::Rejected { proxy: proxy.admin.place(), kind, words });
        }
    }
    Ok(())
}

/// A rejection that Envoy's counters show.
async fn counted_rejection(proxy: &AffectedProxy, started: Instant) -> Result<(), GateError> {
    let Ok(now) = envoy::rejections(&proxy.admin).await else { return Ok(()) };
    let grown = now.iter().find(|(name, count)| **count > proxy.rejections.get(*name).copied().unwrap_or(0));
    let (Some((counter, _)), Some(_)) = (grown, &proxy.intended) else { return Ok(()) };
    let words = envoy::last_rejection(&proxy.admin, started.elapsed()).await;
    Err(GateError::Rejected {
        proxy: proxy.admin.place(),
        kind: counter.clone(),
        words: words.unwrap_or_else(|| "(nothing in its log)".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::held::Resource;
    use rstest::rstest;

    fn object(kind: &str) -> ObjectRef {
        ObjectRef {
            api_version: "networking.istio.io/v1".into(),
            kind: kind.into(),
            namespace: "app1".into(),
            name: "helloworld".into(),
        }
    }

    /// What istiod intends at push `number`: one resource that names the VirtualService and says `content`.
    fn intended(number: u64, content: &str) -> Intended {
        let path = "/apis/networking.istio.io/v1/namespaces/app1/virtual-service/helloworld";
        let made_from = if content.is_empty() { Vec::new() } else { vec![path.to_owned()] };
        let route = Resource { hash: content.into(), text: content.into(), made_from };
        Intended {
            version: Version::parse(&format!("2026-11-23T05:22:50Z/{number}")),
            held: Held::from([((ResourceKind::Route, "5000".to_owned()), route)]),
        }
    }

    fn decide(
        objects: &[Object],
        before: Option<&Intended>,
        newest: Option<u64>,
        now: &Intended,
        settled: bool,
        silent: bool,
    ) -> bool {
        let newest = newest.map(|n| intended(n, "").version.unwrap());
        let before = Before {
            version: before.and_then(|b| b.version.as_ref()).or(newest.as_ref()),
            held: before.map(|b| &b.held),
        };
        let all: Vec<&Object> = objects.iter().collect();
        pushed(&objects[0], &all, &before, now, settled, silent)
    }

    #[rstest]
    #[case::nothing_was_pushed("VirtualService", Fate::Changed, intended(18, "v1"), true, false)]
    #[case::its_mark_has_changed("VirtualService", Fate::Changed, intended(19, "v2"), false, true)]
    #[case::pushed_without_it("VirtualService", Fate::Changed, intended(19, "v1"), false, false)]
    #[case::pushed_long_ago_without_effect("VirtualService", Fate::Changed, intended(19, "v1"), true, true)]
    #[case::its_mark_is_gone("VirtualService", Fate::Deleted, intended(19, ""), false, true)]
    #[case::its_mark_is_still_there("VirtualService", Fate::Deleted, intended(19, "v1"), false, false)]
    #[case::a_kind_without_a_mark("EnvoyFilter", Fate::Created, intended(19, "v2"), false, false)]
    #[case::a_kind_without_a_mark_settled("EnvoyFilter", Fate::Created, intended(19, "v2"), true, true)]
    #[case::unchanged("VirtualService", Fate::Same, intended(18, "v1"), false, true)]
    #[tokio::test]
    async fn old_configuration_never_passes(
        #[case] kind: &str,
        #[case] fate: Fate,
        #[case] now: Intended,
        #[case] settled: bool,
        #[case] expected: bool,
    ) {
        let all = [Object::fake(object(kind), fate)];
        assert_eq!(decide(&all, Some(&intended(18, "v1")), None, &now, settled, false), expected);
    }

    /// A proxy that was not connected before the change has nothing to compare with: content that was there before, on this push
    /// or an older one, is no proof.
    #[rstest]
    #[case::changed(Fate::Changed, 19, "v1", false, false)]
    #[case::changed_and_settled(Fate::Changed, 19, "v1", true, true)]
    #[case::changed_and_the_push_is_old(Fate::Changed, 18, "v2", true, false)]
    #[case::created(Fate::Created, 19, "v1", false, true)]
    #[case::not_created_yet(Fate::Created, 19, "", false, false)]
    #[case::deleted(Fate::Deleted, 19, "", false, false)]
    #[tokio::test]
    async fn a_proxy_that_connected_later(
        #[case] fate: Fate,
        #[case] number: u64,
        #[case] content: &str,
        #[case] settled: bool,
        #[case] expected: bool,
    ) {
        let all = [Object::fake(object("VirtualService"), fate)];
        assert_eq!(decide(&all, None, Some(18), &intended(number, content), settled, false), expected);
    }

    #[tokio::test]
    async fn a_change_that_istiod_makes_no_push_of_is_not_waited_for_without_end() {
        let all = [Object::fake(object("VirtualService"), Fate::Changed)];
        let (before, now) = (intended(18, "v1"), intended(18, "v1"));
        assert!(!decide(&all, Some(&before), None, &now, true, false));
        assert!(decide(&all, Some(&before), None, &now, true, true));
    }

    /// Two VirtualServices on one port share a resource: that it differs proves nothing of either, that it names one does.
    #[rstest]
    #[case::it_may_be_the_others_change(Fate::Changed, Fate::Changed, "v1", "v2", false)]
    #[case::it_may_be_the_others_end(Fate::Changed, Fate::Deleted, "v1", "v2", false)]
    #[case::the_other_one_is_what_it_was(Fate::Changed, Fate::Same, "v1", "v2", true)]
    #[case::its_name_has_come(Fate::Created, Fate::Created, "", "v1", true)]
    #[case::its_name_has_not_come(Fate::Created, Fate::Changed, "", "", false)]
    #[case::its_name_is_gone(Fate::Deleted, Fate::Changed, "v1", "", true)]
    #[case::its_name_is_still_there(Fate::Deleted, Fate::Deleted, "v1", "v2", false)]
    #[tokio::test]
    async fn changes_of_one_resource_do_not_vouch_for_each_other(
        #[case] fate: Fate,
        #[case] of_the_other: Fate,
        #[case] was: &str,
        #[case] is: &str,
        #[case] expected: bool,
    ) {
        let mut other = object("VirtualService");
        other.name = "other".into();
        let all = [Object::fake(object("VirtualService"), fate), Object::fake(other, of_the_other)];
        assert_eq!(decide(&all, Some(&intended(18, was)), None, &intended(19, is), false, false), expected);
    }

    #[test]
    fn a_virtual_service_of_another_namespace_is_another_one() {
        let mut other = object("VirtualService");
        other.namespace = "app2".into();
        let held = intended(18, "v1").held;
        assert_eq!(marks(&object("VirtualService"), &held).len(), 1);
        assert!(marks(&other, &held).is_empty());
    }

    #[test]
    fn many_differences_are_abridged() {
        let differences: Vec<String> = (0..6).map(|n| format!("route {n} (old)")).collect();
        assert_eq!(few(&differences), "route 0 (old), route 1 (old), route 2 (old), route 3 (old) and 2 more");
    }
}
