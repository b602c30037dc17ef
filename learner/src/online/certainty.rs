//! How certain the heads on a fitted artifact begin: as certain as labels on the rows of the fit would
//! have made them, had they been learned one by one with no surprise.

use pointsman_router::artifact::Artifact;
use pointsman_router::heads::{Heads, Prior};
use pointsman_router::hybrid::Standing;

use super::update;

/// One packed triangle a fitted model, as an artifact keeps them. Each row is what the artifact's projection made
/// of a request, with the places of the models that were judged on it.
#[must_use]
pub fn certainty(artifact: &Artifact, rows: impl Iterator<Item = (Vec<f32>, Vec<usize>)>) -> Vec<f32> {
    let mut heads = Heads::new((Prior::FITTED, None), artifact.shape(), artifact.projection.schema());
    for model in &artifact.quality.models {
        heads.add(model);
    }
    for (projected, judged) in rows.filter(|(_, judged)| !judged.is_empty()) {
        let standing = Standing::of(artifact, &projected);
        for lane in judged {
            if let Some(model) = artifact.quality.models.get(lane) {
                let offset = standing.logit(artifact, model.as_str());
                update::read(&heads, lane, (&standing.inputs, offset)).narrow(&mut heads, 0.0);
            }
        }
    }
    heads.blocks_mut().dense_covariances.to_vec()
}
