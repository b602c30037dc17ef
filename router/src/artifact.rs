//! A policy's artifact: immutable, hashed, and all that deciding needs beside online state.
//!
//! | part | bytes |
//! |---|---|
//! | magic `pmpolicy` | 8 |
//! | format version, little-endian | 4 |
//! | hash of the feature schema, little-endian | 8 |
//! | the parts, in postcard's wire format | to the end |
//! | XXH3 of all before, little-endian | 8 |
//!
//! The version of the policy is made of the hash, so two artifacts of one version are the same to the
//! byte. What was read is checked part against part before it is used: an artifact that passes can
//! be asked about any request without a further check. Reading allocates no more than the bytes
//! justify.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::expense::Expense;
use crate::features::SchemaHash;
use crate::forecast::Leans;
use crate::ids::{PolicyVersion, TaskType};
use crate::inputs::Shape;
use crate::projection::Projection;
use crate::quality::Quality;
use crate::topic::Topics;

const MAGIC: &[u8; 8] = b"pmpolicy";
const FORMAT: u32 = 4;
/// No artifact is larger; whoever receives one may stop reading there.
pub const ARTIFACT_BYTES_MAX: usize = 256 << 20;

/// Whether a policy goes on learning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArtifactKind {
    /// Decides by what was fitted and learns nothing.
    Classifier,
    /// Begins from what was fitted and learns from every label.
    Hybrid,
}

impl ArtifactKind {
    /// The word in versions and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classifier => "classifier",
            Self::Hybrid => "hybrid",
        }
    }
}

/// What it was fitted on, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// Rows that were read.
    pub rows: u64,
    /// Labels among them.
    pub labels: u64,
    /// The seed.
    pub seed: u64,
}

/// The parts of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Whether it goes on learning.
    pub kind: ArtifactKind,
    /// What it was fitted on.
    pub origin: Origin,
    /// The fitted encoder.
    pub projection: Projection,
    /// The fitted quality of the models.
    pub quality: Quality,
    /// How far a request's cost and latency lean from others of its size.
    pub expense: Expense,
    /// The fitted task types.
    pub topics: Topics,
    /// How certain the head of each fitted model begins: a packed triangle each, as the heads keep it.
    pub certainty: Vec<f32>,
}

/// Why bytes are no artifact that can be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// They are something else altogether.
    #[error("this is no policy artifact, give a file that `train` wrote")]
    Foreign,
    /// They end too early.
    #[error("the artifact is cut short, copy it again")]
    Truncated,
    /// They were changed since they were written, or do not fit each other.
    #[error("the artifact is damaged, copy it again or train anew")]
    Damaged,
    /// They were written by another version of the program.
    #[error("the artifact has format {found} and this program reads {FORMAT}, train anew")]
    Format {
        /// The format found.
        found: u32,
    },
    /// They need other features than this installation makes.
    #[error(
        "the artifact needs features {found:016x} and this installation makes {expected:016x}, train on its own traces"
    )]
    Schema {
        /// The schema that it needs.
        found: u64,
        /// The schema that there is.
        expected: u64,
    },
    /// They cannot be written.
    #[error("the artifact cannot be written: {detail}")]
    Unwritable {
        /// What the writer said.
        detail: String,
    },
}

impl Artifact {
    /// The artifact as bytes, and the version that they make.
    ///
    /// # Errors
    /// [`ArtifactError::Unwritable`]: a part has no form in bytes.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, PolicyVersion), ArtifactError> {
        let body = postcard::to_allocvec(self)
            .map_err(|error| ArtifactError::Unwritable { detail: error.to_string() })?;
        let mut bytes = Vec::with_capacity(body.len() + 28);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.projection.schema().0.to_le_bytes());
        bytes.extend_from_slice(&body);
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Ok((bytes, self.version_of(checksum)))
    }

    /// The artifact that these bytes hold and its version, for features of this schema.
    ///
    /// # Errors
    /// [`ArtifactError`] when they are foreign, cut, changed, or for other features.
    pub fn from_bytes(bytes: &[u8], schema: SchemaHash) -> Result<(Self, PolicyVersion), ArtifactError> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(ArtifactError::Foreign)?;
        if magic != MAGIC {
            return Err(ArtifactError::Foreign);
        }
        let (format, rest) = rest.split_first_chunk::<4>().ok_or(ArtifactError::Truncated)?;
        let found = u32::from_le_bytes(*format);
        if found != FORMAT {
            return Err(ArtifactError::Format { found });
        }
        let (wanted, rest) = rest.split_first_chunk::<8>().ok_or(ArtifactError::Truncated)?;
        let (body, checksum) = rest.split_last_chunk::<8>().ok_or(ArtifactError::Truncated)?;
        let checksum = u64::from_le_bytes(*checksum);
        let covered = bytes.len().saturating_sub(8);
        if xxh3_64(bytes.get(..covered).unwrap_or_default()) != checksum {
            return Err(ArtifactError::Damaged);
        }
        let found = u64::from_le_bytes(*wanted);
        if found != schema.0 {
            return Err(ArtifactError::Schema { found, expected: schema.0 });
        }
        let artifact: Self = postcard::from_bytes(body).map_err(|_| ArtifactError::Damaged)?;
        let version = artifact.version_of(checksum);
        if artifact.is_sound() && artifact.projection.schema() == schema {
            Ok((artifact, version))
        } else {
            Err(ArtifactError::Damaged)
        }
    }

    /// Whether its parts fit each other.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.projection.is_sound()
            && self.projection.directions() == self.quality.models.len()
            && self.quality.is_sound(self.projection.width())
            && self.expense.is_sound(self.projection.width(), self.quality.models.len())
            && self.topics.is_sound(self.projection.width())
            && self.quality.models.len().checked_mul(self.shape().triangle()) == Some(self.certainty.len())
            && self.certainty.iter().all(|cell| cell.is_finite())
    }

    /// The task type of a request, from what the projection made of it.
    #[must_use]
    pub fn infer_task(&self, projected: &[f32]) -> Option<TaskType> {
        self.topics.infer(projected.get(..self.projection.width())?).cloned()
    }

    /// How far calls of a model lean, from what the projection made of a request of this size.
    #[must_use]
    pub fn leans(&self, projected: &[f32], prompt_bytes: u32, model: &str) -> Leans {
        let dense = projected.get(..self.projection.width()).unwrap_or_default();
        self.expense.leans(&self.quality.models, (dense, prompt_bytes), model)
    }

    /// The inputs of heads that stand on it.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape { dense: self.projection.width(), sparse: 0 }
    }

    fn version_of(&self, checksum: u64) -> PolicyVersion {
        PolicyVersion::from(format!("{}-{checksum:016x}", self.kind.as_str()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::expense::ModelExpense;
    use crate::features::SURFACE_DIMS;
    use crate::forest::Forest;
    use crate::projection::{PLAIN_DIMS, PROJECTION_ROWS, Rows, Spread};
    use crate::quality::Platt;

    const DIMS: usize = 2;

    /// Two models; `a` is right with probability .8, `b` with .3, whatever is asked.
    pub(crate) fn sample() -> Artifact {
        let surface = [Spread { mean: 0.0, inverse_sd: 1.0 }; SURFACE_DIMS];
        let parts = (Rows::new(&[1.0; PROJECTION_ROWS], DIMS + 2, &[]), vec![0.0; DIMS + 2]);
        Artifact {
            kind: ArtifactKind::Classifier,
            origin: Origin { rows: 10, labels: 20, seed: 1 },
            projection: Projection::new(SchemaHash(7), DIMS, surface, parts).unwrap(),
            quality: Quality {
                models: vec!["a".into(), "b".into()],
                means: vec![0.8, 0.3],
                forest: Forest::default(),
                platt: vec![Platt::IDENTITY; 2],
            },
            expense: Expense { models: vec![ModelExpense::default(); 2] },
            topics: Topics::default(),
            certainty: vec![0.5; 2 * Shape { dense: PLAIN_DIMS + DIMS, sparse: 0 }.triangle()],
        }
    }

    #[test]
    fn bytes_come_back_as_they_were() {
        let artifact = sample();
        let (bytes, version) = artifact.to_bytes().unwrap();
        assert_eq!(Artifact::from_bytes(&bytes, SchemaHash(7)), Ok((artifact.clone(), version.clone())));
        assert!(version.as_str().starts_with("classifier-"));
        let other = Artifact { origin: Origin { seed: 2, ..artifact.origin }, ..sample() };
        assert_ne!(other.to_bytes().unwrap().1, version);
    }

    #[test]
    fn what_is_no_artifact_is_refused() {
        let (bytes, _) = sample().to_bytes().unwrap();
        let check = |bytes: &[u8], schema: u64, wanted: ArtifactError| {
            assert_eq!(Artifact::from_bytes(bytes, SchemaHash(schema)), Err(wanted));
        };
        check(b"", 7, ArtifactError::Foreign);
        check(b"something else altogether", 7, ArtifactError::Foreign);
        check(&bytes[..10], 7, ArtifactError::Truncated);
        check(&bytes[..24], 7, ArtifactError::Truncated);
        check(&bytes[..bytes.len() - 1], 7, ArtifactError::Damaged);
        check(&bytes, 8, ArtifactError::Schema { found: 7, expected: 8 });
        let mut newer = bytes.clone();
        newer[8] = 9;
        check(&newer, 7, ArtifactError::Format { found: 9 });
        let mut flipped = bytes.clone();
        flipped[5_000] ^= 1;
        check(&flipped, 7, ArtifactError::Damaged);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_whatever_their_checksum() {
        let mut spoilt = sample();
        spoilt.quality.means.push(0.5);
        let (bytes, _) = spoilt.to_bytes().unwrap();
        assert_eq!(Artifact::from_bytes(&bytes, SchemaHash(7)), Err(ArtifactError::Damaged));
        let mut spoilt = sample();
        spoilt.expense.models.pop();
        let (bytes, _) = spoilt.to_bytes().unwrap();
        assert_eq!(Artifact::from_bytes(&bytes, SchemaHash(7)), Err(ArtifactError::Damaged));
    }
}
