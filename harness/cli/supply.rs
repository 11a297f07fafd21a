//! `meshproof supply`.

use clap::Args;

use super::EnvOptions;
use crate::failure::Failure;
use crate::journal::state_root;
use crate::project::Project;
use crate::provider::ProviderName;
use crate::run::kit::Kit;
use crate::run::record::environments;
use crate::supply::{self, Purpose, Versions};
use crate::ui;

/// Arguments of `meshproof supply`.
#[derive(Debug, Args)]
pub struct SupplyArgs {
    #[command(flatten)]
    options: EnvOptions,
    /// The provider to supply; can be repeated (default: the one that `--provider` chooses).
    #[arg(long = "for", value_enum, value_name = "PROVIDER")]
    purposes: Vec<Purpose>,
    /// Remove what is in the cache and in no version that versions.yaml names, instead.
    #[arg(long)]
    prune: bool,
}

/// Gets everything that environments are made of.
pub async fn main(project: &Project, args: SupplyArgs) -> Result<u8, Failure> {
    let mut settings = args.options.settings(project.clone())?;
    settings.existing.install_mesh |= args.purposes.contains(&Purpose::Mesh);
    let versions = settings.versions()?;
    if args.prune {
        return prune(&versions).await;
    }
    let provider_of = |purpose: &Purpose| match purpose {
        Purpose::Kind => ProviderName::Kind,
        Purpose::Netns => ProviderName::Netns,
        Purpose::Workloads | Purpose::Mesh => ProviderName::Existing,
    };
    let mut providers: Vec<ProviderName> = args.purposes.iter().map(provider_of).collect();
    if providers.is_empty() {
        providers.push(settings.provider().await);
    }
    for provider in providers {
        let kit = Kit::get(&settings, &versions, provider).await.map_err(|e| miette::miette!("{e}"))?;
        ui::say(format!("the supply for {provider} is complete (from {})", kit.supplied.origin));
        for (program, path) in kit.supplied.programs() {
            anstream::println!("{program}\t{}", path.display());
        }
    }
    Ok(0)
}

async fn prune(versions: &Versions) -> Result<u8, Failure> {
    let running = environments(&state_root()).map_err(|e| miette::miette!("{e}"))?;
    if let Some(environment) = running.first() {
        let help = "meshproof down --all";
        let what = format!("environment {} exists: its programs may run from the cache", environment.id);
        return Err(miette::miette!(help = help, "{what}").into());
    }
    let pruned = supply::prune(versions).await.map_err(|e| miette::miette!("{e}"))?;
    let gib = pruned.bytes as f64 / f64::from(1u32 << 30);
    anstream::println!("removed {} items ({gib:.1} GiB)", pruned.items);
    Ok(0)
}
