//! An environment: running clusters with a mesh, created or reused.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::kit::{self, Kit};
use super::record::{EnvRecord, Phase, PhaseDone, SCHEMA, Standing, environments};
use super::settings::Settings;
use super::stale::StaleConnections;
use super::{RunError, foreign_mesh};
use crate::fault::World;
use crate::gate::{self, Change};
use crate::istio::{self, Mesh};
use crate::journal::{EnvDir, state_root};
use crate::provider::{Cluster, ProviderName};
use crate::scenario::MeshOptions;
use crate::topology::Topology;
use crate::{ui, workload};

/// Running clusters with a mesh.
pub struct Environment {
    /// Its folder and journal; the lock is held as long as this lives.
    pub dir: EnvDir,
    /// What is written down of it.
    pub record: EnvRecord,
    /// What was asked for.
    pub topology: Topology,
    /// The clusters, in the topology's order.
    pub clusters: Vec<Cluster>,
    /// The mesh over them.
    pub mesh: Mesh,
    /// It existed before this command, so this command does not remove it.
    pub found: bool,
    /// Seconds of each phase of *this* command: empty when the environment was found.
    pub phases: Vec<(String, Duration)>,
}

/// An environment that could not be created completely.
pub struct HalfMade {
    /// Its folder and journal; the lock is held as long as this lives.
    pub dir: EnvDir,
    /// What is written down of it.
    pub record: EnvRecord,
    /// It existed before this command, so this command does not remove it.
    pub found: bool,
}

impl HalfMade {
    /// Its clusters, if all of them came up.
    pub async fn clusters(&self) -> Vec<Cluster> {
        if !self.record.is_done(Phase::Clusters) {
            return Vec::new();
        }
        kit::look(&self.dir, &self.record).await.unwrap_or_default()
    }
}

/// No environment came up.
pub struct NotMade {
    /// Why.
    pub error: RunError,
    /// What there is of it. It is the caller's to remove.
    pub half: Option<HalfMade>,
}

impl<E: Into<RunError>> From<E> for NotMade {
    fn from(error: E) -> Self {
        Self { error: error.into(), half: None }
    }
}

/// What the phases have created.
struct Made {
    clusters: Vec<Cluster>,
    mesh: Mesh,
    phases: Vec<(String, Duration)>,
}

/// What an environment is built from, as one short hash: environments of equal fingerprint are
/// interchangeable. Of the mesh options only those are part of it that a running mesh cannot change: the server for traces, chart
/// values, the revision.
pub fn fingerprint(topology: &Topology, kit: &Kit, options: &MeshOptions) -> String {
    let mut hash = Sha256::new();
    for text in [&format!("{topology:?}"), &kit.fingerprint(), env!("CARGO_PKG_VERSION")] {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    // A mesh with another server for traces is another mesh.
    if let Some(tracing) = options.tracing {
        hash.update(format!("{tracing:?}"));
    }
    if !options.crds().is_empty() {
        hash.update(format!("{:?}", options.crds()));
    }
    if !options.istio.values.is_empty() || options.istio.revision.is_some() {
        hash.update(format!("{:?} {:?}", options.istio.values, options.istio.revision));
    }
    // Between meshes, MeshConfig holds the roots of the others, which only the installation knows.
    let meshes: BTreeSet<&str> = topology.clusters.iter().map(|cluster| cluster.mesh.id.as_str()).collect();
    if meshes.len() > 1 && !options.istio.config.is_empty() {
        hash.update(format!("{:?}", options.istio.config));
    }
    hex::encode(&hash.finalize()[..8])
}

impl Environment {
    /// The kept environment of that fingerprint, if there is one and nobody works on it; otherwise a new one.
    ///
    /// # Errors
    /// [`NotMade`], when a phase of its making failed.
    pub async fn find_or_make(
        settings: &Settings,
        topology: &Topology,
        kit: &Kit,
        options: &MeshOptions,
    ) -> Result<Self, NotMade> {
        let fingerprint = fingerprint(topology, kit, options);
        let found = find(&settings.state_root, &fingerprint, settings.wait_for_kept).await?;
        let mut half = match found {
            Some((dir, record)) => HalfMade { dir, record, found: true },
            None => Self::begin(settings, topology, kit, fingerprint)?,
        };
        match Self::resume(settings, &mut half, topology, kit, options).await {
            Ok(Made { clusters, mesh, phases }) => {
                let HalfMade { dir, record, found } = half;
                Ok(Self { dir, record, topology: topology.clone(), clusters, mesh, found, phases })
            }
            Err(error) => Err(NotMade { error, half: Some(half) }),
        }
    }

    /// A folder and a record, and nothing else yet.
    fn begin(settings: &Settings, topology: &Topology, kit: &Kit, fingerprint: String) -> Result<HalfMade, RunError> {
        let id = new_id();
        let dir = EnvDir::create(&settings.state_root, &id)?;
        let record = EnvRecord {
            schema: SCHEMA,
            id,
            fingerprint,
            provider: kit.provider,
            topology: topology.clone(),
            // Clusters of which some are missing are no use to anybody.
            kept: false,
            created: jiff::Timestamp::now().to_string(),
            phases: Vec::new(),
            mesh: None,
            found_mesh: None,
            kubeconfigs: Vec::new(),
        };
        record.save(&dir)?;
        Ok(HalfMade { dir, record, found: false })
    }

    /// A kept environment, to work on without changing it first; `None` when another process works on it.
    ///
    /// # Errors
    /// When its clusters do not answer.
    pub async fn reopen(record: EnvRecord) -> Result<Option<Self>, RunError> {
        let Some(dir) = EnvDir::open(&state_root(), &record.id)? else { return Ok(None) };
        let clusters = kit::look(&dir, &record).await?;
        let topology = record.topology.clone();
        let revision = record.mesh.as_ref().and_then(|mesh| mesh.istio.revision.clone());
        let mesh = Mesh { topology: topology.clone(), owner: record.id.clone(), revision };
        Ok(Some(Self { dir, record, topology, clusters, mesh, found: true, phases: Vec::new() }))
    }

    /// Does the phases that are not over yet.
    async fn resume(
        settings: &Settings,
        HalfMade { dir, record, .. }: &mut HalfMade,
        topology: &Topology,
        kit: &Kit,
        options: &MeshOptions,
    ) -> Result<Made, RunError> {
        let dir = &*dir;
        if let Some(phase) = settings.from_phase {
            record.forget_from(phase);
        }
        let mut phases = Vec::new();
        // Manifests and certificates need no cluster: they are created while the clusters start.
        let prepared = async {
            if kit.finds_mesh() {
                return Ok(None);
            }
            let inputs = kit.mesh_inputs(dir.id())?;
            Ok::<_, RunError>(Some(istio::prepare(topology, options, &inputs).await?))
        };
        let clusters = async {
            if record.is_done(Phase::Clusters) {
                return kit::attach(dir, record).await.map(|clusters| (clusters, None));
            }
            let started = Instant::now();
            let clusters = kit.create(dir, topology).await?;
            Ok::<_, RunError>((clusters, Some(started.elapsed())))
        };
        let (prepared, clusters) = tokio::join!(prepared, clusters);
        let (clusters, took) = clusters?;
        if let Some(took) = took {
            phases.push(("clusters".to_owned(), took));
            record.kubeconfigs = clusters.iter().map(|c| (c.name.clone(), c.kubeconfig.clone())).collect();
            record.kept = settings.keep.from_the_start();
            done(dir, record, Phase::Clusters, took)?;
        }
        let revision = options.istio.revision.clone();
        let mesh = Mesh { topology: topology.clone(), owner: record.id.clone(), revision };
        let started = Instant::now();
        match prepared? {
            // Whoever owns it may have changed it since.
            None => {
                let found = istio::found::find(&mesh, &clusters).await?;
                record.forget_from(Phase::Mesh);
                record.found_mesh = Some(found);
                done(dir, record, Phase::Mesh, started.elapsed())?;
            }
            Some(_) if record.is_done(Phase::Mesh) => {}
            Some(prepared) => {
                if kit.provider == ProviderName::Existing {
                    foreign_mesh::own_mesh(dir, &clusters, &prepared).await?;
                }
                phases.extend(istio::install(&prepared, &clusters).await?.phases);
                record.mesh = Some(options.clone());
                done(dir, record, Phase::Mesh, started.elapsed())?;
            }
        }
        Ok(Made { clusters, mesh, phases })
    }

    /// The cluster of that name. Scenarios are validated against the topology, so it exists.
    ///
    /// # Errors
    /// [`RunError::Unknown`] when it does not.
    pub fn cluster(&self, name: &str) -> Result<&Cluster, RunError> {
        self.clusters.iter().find(|c| c.name == name).ok_or_else(|| RunError::Unknown {
            what: "cluster",
            name: name.to_owned(),
            known: self.clusters.iter().map(|c| c.name.clone()).collect(),
        })
    }

    /// The mesh's options for workloads; in an existing mesh, with its revision.
    pub fn mesh_of(&self, wanted: &MeshOptions) -> MeshOptions {
        let mut options = wanted.clone();
        if let Some(found) = &self.record.found_mesh {
            options.istio.revision = options.istio.revision.or_else(|| found.revision().map(str::to_owned));
        }
        options
    }

    /// What faults work on.
    pub fn world<'a>(&'a self, namespaces: &'a BTreeSet<String>) -> World<'a> {
        World {
            clusters: &self.clusters,
            topology: &self.topology,
            namespaces,
            owner: &self.record.id,
            mesh_was_there: self.record.found_mesh.is_some(),
        }
    }

    /// The namespaces that workloads are in now, whichever scenario brought them.
    ///
    /// # Errors
    /// When a cluster does not answer.
    pub async fn workload_namespaces(&self) -> Result<BTreeSet<String>, RunError> {
        Ok(workload::namespaces(&self.clusters, &self.record.id).await?)
    }

    /// Sets the mesh up as `options` say, if it is not already. A mesh that was found is never changed.
    ///
    /// # Errors
    /// When the mesh cannot be changed.
    pub async fn reconcile_mesh(&mut self, kit: &Kit, options: &MeshOptions) -> Result<(), RunError> {
        // Whether it fits the scenario was checked when its namespaces were created.
        if self.record.found_mesh.is_some() {
            return Ok(());
        }
        // Without a record, a change of it was cut off: nothing is known of it.
        let now = self.record.mesh.clone();
        if now.as_ref() == Some(options) {
            return Ok(());
        }
        let inputs = kit.mesh_inputs(self.dir.id())?;
        let objects = istio::changed_objects(&self.mesh.topology, now.as_ref(), options, &inputs).await?;
        let task = ui::begin("changing the mesh's options", None);
        // Until the change is over nobody may take the environment for what it was.
        self.record.mesh = None;
        self.record.save(&self.dir)?;
        let mut gates = Vec::new();
        for (cluster, manifest) in &objects {
            let change = Change::manifests(cluster, std::slice::from_ref(manifest));
            gates.push(gate::before(&self.clusters, change).await?);
        }
        istio::reconcile(&self.mesh, &self.clusters, now.as_ref(), options, &objects).await?;
        for before in gates {
            StaleConnections::of(&self.dir).note(&gate::after(before, super::GATE_LIMIT).await?)?;
        }
        self.record.mesh = Some(options.clone());
        self.record.save(&self.dir)?;
        task.done();
        Ok(())
    }
}

fn done(dir: &EnvDir, record: &mut EnvRecord, phase: Phase, took: Duration) -> Result<(), RunError> {
    record.phases.push(PhaseDone { phase, seconds: took.as_secs_f64() });
    Ok(record.save(dir)?)
}

/// The kept environment of that fingerprint, with its lock.
async fn find(root: &Path, fingerprint: &str, wait: bool) -> Result<Option<(EnvDir, EnvRecord)>, RunError> {
    let matching = |record: &Option<EnvRecord>| record.as_ref().is_some_and(|r| r.kept && r.fingerprint == fingerprint);
    for found in environments(root)? {
        if !matching(&found.record) || (found.standing == Standing::InUse && !wait) {
            continue;
        }
        let dir = match EnvDir::open(root, &found.id)? {
            Some(dir) => dir,
            None if wait => {
                ui::say(format!("environment {} is in use by another process; waiting for it", found.id));
                let (root, id) = (root.to_owned(), found.id.clone());
                match tokio::task::spawn_blocking(move || EnvDir::open_when_free(&root, &id)).await {
                    Ok(dir) => match dir? {
                        Some(dir) => dir,
                        None => continue,
                    },
                    Err(_) => continue,
                }
            }
            None => continue,
        };
        // It may have changed before its lock was free.
        let record = EnvRecord::load(dir.path());
        if let (true, Some(record)) = (matching(&record), record) {
            return Ok(Some((dir, record)));
        }
    }
    Ok(None)
}

/// Five characters, lower case: part of the names of clusters, networks and links (whose names
/// may have 15 characters in all).
fn new_id() -> String {
    use rand::Rng;
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    let letter = |range: std::ops::Range<usize>, random: &mut rand::rngs::ThreadRng| {
        char::from(LETTERS[random.random_range(range)])
    };
    // The first one is a letter: some names must not begin with a digit.
    (0..5).map(|i| letter(0..if i == 0 { 24 } else { LETTERS.len() }, &mut random)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_fit_into_every_kind_of_name() {
        for _ in 0..1000 {
            let id = new_id();
            assert!(id.len() == 5 && id.starts_with(|c: char| c.is_ascii_lowercase()), "{id}");
            assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{id}");
        }
    }
}
