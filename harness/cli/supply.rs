//! `meshproof supply`.

use clap::Args;

use super::EnvOptions;
use crate::failure::Failure;
use crate::project::Project;
use crate::provider::ProviderName;
use crate::run::kit::Kit;
use crate::supply::Purpose;
use crate::ui;

/// Arguments of `meshproof supply`.
#[derive(Debug, Args)]
pub struct SupplyArgs {
    #[command(flatten)]
    options: EnvOptions,
    /// The provider to supply; can be repeated (default: the one that `--provider` chooses).
    #[arg(long = "for", value_enum, value_name = "PROVIDER")]
    purposes: Vec<Purpose>,
}

/// Gets everything that environments are made of.
pub async fn main(project: &Project, args: SupplyArgs) -> Result<u8, Failure> {
    let mut settings = args.options.settings(project.clone())?;
    settings.existing.install_mesh |= args.purposes.contains(&Purpose::Mesh);
    let versions = settings.versions()?;
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
