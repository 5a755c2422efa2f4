//! The shape of a model: `config.json` in both dialects in the wild.

mod keys;

use crate::json;
use keys::{Keys, shown};
use serde_json::Value;

/// A GPT-NeoX model's hyperparameters, under the names of Hugging Face's `GPTNeoXConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct GptNeoxConfig {
    /// Rows of the token embedding, padding included.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads of each layer.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Longest context in tokens.
    pub max_position_embeddings: usize,
    /// Share of a head's dimensions that are rotated.
    pub rotary_pct: f64,
    /// Base of the rotary frequencies.
    pub rotary_emb_base: f64,
    /// Added to the variance in layer normalization.
    pub layer_norm_eps: f64,
    /// Whether attention and feed-forward read the same input, as all of Pythia does.
    pub use_parallel_residual: bool,
    /// Whether the projections of attention have a bias.
    pub attention_bias: bool,
    /// Whether the output projection is the token embedding.
    pub tie_word_embeddings: bool,
}

/// Why a `config.json` describes no model of ours.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not JSON, or a key stands twice.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is JSON, but no object.
    #[error("it is not a JSON object")]
    NoObject,
    /// A key that has no default is not there.
    #[error("`{key}` is missing")]
    Absent {
        /// The key.
        key: &'static str,
    },
    /// A key is needed in one of two places and is null in one, and in the other at best.
    #[error("neither `{old}` nor `{new}` is given")]
    Missing {
        /// Its name up to transformers 4.
        old: &'static str,
        /// Its name since transformers 5.
        new: &'static str,
    },
    /// A value is of another type than its key asks for.
    #[error("`{key}` is {found}, not {expected}")]
    Type {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The type, with its article.
        expected: &'static str,
    },
    /// A value asks for what GPT-NeoX models of this suite do not have.
    #[error("`{key}` is {found}, only {expected} is supported")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What could be read.
        expected: &'static str,
    },
    /// Two keys that mean the same have different values.
    #[error("`{first}` is {first_value}, but `{second}` is {second_value}")]
    Dialects {
        /// One key.
        first: &'static str,
        /// Its value.
        first_value: f64,
        /// The other key.
        second: &'static str,
        /// Its value.
        second_value: f64,
    },
    /// The numbers contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// Layers that a model may have; Pythia-12B has 36.
const MOST_LAYERS: usize = 1024;
/// Positions that a model may have; Pythia has 2,048.
const MOST_POSITIONS: usize = 1 << 20;
/// Angles of all positions, the sines of which are kept.
const MOST_ANGLES: usize = 1 << 25;
/// Any other size: far above any model, and low enough that products of two cannot overflow.
const LARGEST: usize = 1 << 24;

impl GptNeoxConfig {
    /// Reads the text of a `config.json`, in the dialect of transformers up to 4 or since 5. Keys that are absent have
    /// the defaults of transformers' `GPTNeoXConfig`, save the sizes of the model, which must be there.
    ///
    /// # Errors
    ///
    /// When a key is missing or of another type, stands twice, or describes another architecture, and when both dialects
    /// are there with different values.
    pub fn from_json(text: &[u8]) -> Result<Self, ConfigError> {
        let Value::Object(keys) = json::parse(text)? else {
            return Err(ConfigError::NoObject);
        };
        let keys = Keys(keys);
        keys.must_be("model_type", None, "gpt_neox")?;
        keys.must_be("hidden_act", Some("gelu"), "gelu")?;
        if let Some(found) = keys.given("quantization_config") {
            return Err(ConfigError::Unsupported {
                key: "quantization_config",
                found: shown(found),
                expected: "null",
            });
        }
        keys.check_rope()?;
        let config = Self {
            vocab_size: keys.size("vocab_size")?,
            hidden_size: keys.size("hidden_size")?,
            num_hidden_layers: keys.size("num_hidden_layers")?,
            num_attention_heads: keys.size("num_attention_heads")?,
            intermediate_size: keys.size("intermediate_size")?,
            max_position_embeddings: keys.size("max_position_embeddings")?,
            rotary_pct: keys.rotary(
                [
                    "rotary_pct",
                    "rope_parameters.partial_rotary_factor",
                    "rope_scaling.partial_rotary_factor",
                    "partial_rotary_factor",
                ],
                0.25,
            )?,
            rotary_emb_base: keys.rotary(
                [
                    "rotary_emb_base",
                    "rope_parameters.rope_theta",
                    "rope_scaling.rope_theta",
                    "rope_theta",
                ],
                10_000.0,
            )?,
            layer_norm_eps: keys.number("layer_norm_eps")?.unwrap_or(1e-5),
            use_parallel_residual: keys.flag("use_parallel_residual", true)?,
            attention_bias: keys.flag("attention_bias", true)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", false)?,
        };
        config.check()?;
        Ok(config)
    }

    /// Dimensions of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Dimensions of one attention head that are rotated.
    pub fn n_rotary(&self) -> usize {
        // transformers: int(head_size * partial_rotary_factor)
        #[expect(
            clippy::cast_precision_loss,
            reason = "a head has far fewer than 2⁵² dimensions"
        )]
        let exact = self.head_size() as f64 * self.rotary_pct;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be in 0 … head size"
        )]
        let n_rotary = exact as usize;
        n_rotary
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |problem: String| Err(ConfigError::Contradiction(problem));
        let counts = [
            ("vocab_size", self.vocab_size, LARGEST),
            ("hidden_size", self.hidden_size, LARGEST),
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("num_attention_heads", self.num_attention_heads, LARGEST),
            ("intermediate_size", self.intermediate_size, LARGEST),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                MOST_POSITIONS,
            ),
        ];
        for (key, count, most) in counts {
            if count == 0 {
                return wrong(format!("`{key}` is 0"));
            }
            if count > most {
                return wrong(format!("`{key}` is {count}, over the limit of {most}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return wrong(format!(
                "`hidden_size` {} is no multiple of `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if !(0.0..=1.0).contains(&self.rotary_pct) || !self.n_rotary().is_multiple_of(2) {
            return wrong(format!(
                "`rotary_pct` {} of {} dimensions is no even number of them",
                self.rotary_pct,
                self.head_size()
            ));
        }
        if self.max_position_embeddings * (self.n_rotary() / 2) > MOST_ANGLES {
            return wrong(format!(
                "`max_position_embeddings` is {}, over the limit of {MOST_ANGLES} angles with {} rotated dimensions",
                self.max_position_embeddings,
                self.n_rotary()
            ));
        }
        // In f32, as they are computed with.
        if !(1.0..=1e30).contains(&self.rotary_emb_base) {
            let found = self.rotary_emb_base;
            return wrong(format!("`rotary_emb_base` is {found}, not in 1 … 1e30"));
        }
        if !(0.0..=1.0).contains(&self.layer_norm_eps) {
            let found = self.layer_norm_eps;
            return wrong(format!("`layer_norm_eps` is {found}, not in 0 … 1"));
        }
        Ok(())
    }
}

impl ConfigError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Json(_) | Self::NoObject | Self::Absent { .. } => {
                "download `config.json` again, or mend it there"
            }
            Self::Unsupported {
                key: "model_type", ..
            } => {
                "only models of GPT-NeoX's architecture, as Pythia's, can be judged: name another checkpoint"
            }
            Self::Unsupported {
                key: "quantization_config",
                ..
            } => "name the checkpoint that was not quantized",
            Self::Missing { .. } => {
                "give one of the two, as in the model's published `config.json`"
            }
            Self::Dialects { .. } => {
                "keep the one that the model was trained with, and remove the other"
            }
            Self::Type { .. } | Self::Contradiction(_) => {
                "compare it with the model's published `config.json`"
            }
            Self::Unsupported { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn published() -> Value {
        json!({
            "model_type": "gpt_neox", "hidden_act": "gelu", "vocab_size": 50304, "hidden_size": 512,
            "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048,
            "max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "use_parallel_residual": true,
            "rotary_pct": 0.25, "rotary_emb_base": 10000, "torch_dtype": "float16"
        })
    }

    fn read(change: impl FnOnce(&mut Value)) -> Result<GptNeoxConfig, String> {
        let mut value = published();
        change(&mut value);
        GptNeoxConfig::from_json(value.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn both_dialects_say_the_same() {
        let old = read(|_| {}).unwrap();
        assert_eq!((old.head_size(), old.n_rotary()), (64, 16));
        let new = read(|value| {
            let keys = value.as_object_mut().unwrap();
            keys.remove("rotary_pct");
            keys.remove("rotary_emb_base");
            keys.insert("attention_bias".to_owned(), json!(true));
            let rope = json!({"rope_type": "default", "partial_rotary_factor": 0.25, "rope_theta": 10000.0});
            keys.insert("rope_parameters".to_owned(), rope);
        });
        assert_eq!(new.unwrap(), old);
    }

    #[test]
    fn what_is_no_such_model_is_refused() {
        let refused = |change: fn(&mut Value)| read(change).unwrap_err();
        assert_eq!(
            refused(|value| value["model_type"] = json!("llama")),
            "`model_type` is `llama`, only gpt_neox is supported"
        );
        assert_eq!(
            refused(|value| value["hidden_act"] = json!("gelu_new")),
            "`hidden_act` is `gelu_new`, only gelu is supported"
        );
        assert_eq!(
            refused(|value| value["num_attention_heads"] = json!(7)),
            "`hidden_size` 512 is no multiple of `num_attention_heads` 7"
        );
        assert_eq!(
            refused(|value| value["num_attention_heads"] = json!(0)),
            "`num_attention_heads` is 0"
        );
        assert_eq!(
            refused(|value| value["rotary_pct"] = json!(1.5)),
            "`rotary_pct` 1.5 of 64 dimensions is no even number of them"
        );
        assert_eq!(
            refused(|value| value["rotary_pct"] = json!(null)),
            "neither `rotary_pct` nor `rope_parameters.partial_rotary_factor` is given"
        );
        assert!(
            refused(|value| value["rope_scaling"] = json!({"type": "linear"}))
                .starts_with("`rope_scaling` is")
        );
        assert_eq!(
            refused(|value| value["vocab_size"] = json!("many")),
            "`vocab_size` is `many`, not a whole number"
        );
    }

    #[test]
    fn another_architecture_is_named_before_its_keys_are_missed() {
        let text = br#"{"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5}"#;
        let error = GptNeoxConfig::from_json(text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`model_type` is `llama`, only gpt_neox is supported"
        );
        assert!(error.hint().unwrap().contains("GPT-NeoX"));
        let error = GptNeoxConfig::from_json(b"{}").unwrap_err().to_string();
        assert!(error.starts_with("`model_type` is missing"), "{error}");
    }

    #[test]
    fn absent_keys_have_the_defaults_of_transformers() {
        let expected = read(|_| {}).unwrap();
        let bare = read(|value| {
            let keys = value.as_object_mut().unwrap();
            for key in [
                "hidden_act",
                "layer_norm_eps",
                "rotary_pct",
                "rotary_emb_base",
                "use_parallel_residual",
            ] {
                keys.remove(key).unwrap();
            }
        });
        assert_eq!(bare.unwrap(), expected);
        assert!(expected.attention_bias && !expected.tie_word_embeddings);
        let error = read(|value| {
            value.as_object_mut().unwrap().remove("hidden_size");
        });
        assert_eq!(error.unwrap_err(), "`hidden_size` is missing");
    }

    #[test]
    fn two_dialects_must_agree() {
        let with = |rope: Value| read(move |value| value["rope_parameters"] = rope);
        let agreeing =
            json!({"rope_type": "default", "partial_rotary_factor": 0.25, "rope_theta": 10000.0});
        assert_eq!(with(agreeing), read(|_| {}));
        assert_eq!(
            with(json!({"partial_rotary_factor": 0.5})).unwrap_err(),
            "`rotary_pct` is 0.25, but `rope_parameters.partial_rotary_factor` is 0.5"
        );
        assert_eq!(
            with(json!({"rope_theta": 5000})).unwrap_err(),
            "`rotary_emb_base` is 10000, but `rope_parameters.rope_theta` is 5000"
        );
        assert_eq!(
            with(json!({"rope_theta": "x"})).unwrap_err(),
            "`rope_parameters.rope_theta` is `x`, not a number"
        );
        assert_eq!(
            with(json!({"rope_type": "yarn"})).unwrap_err(),
            "`rope_parameters.rope_type` is `yarn`, only default is supported"
        );
        assert_eq!(
            with(json!([])).unwrap_err(),
            "`rope_parameters` is [], not an object"
        );
        assert_eq!(
            read(|value| value["rope_theta"] = json!(2)).unwrap_err(),
            "`rotary_emb_base` is 10000, but `rope_theta` is 2"
        );
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (key, value) in [
            ("num_hidden_layers", json!(1_000_000)),
            ("num_hidden_layers", json!(-1)),
            ("hidden_size", json!(512.5)),
            ("hidden_size", json!(u64::MAX)),
            ("max_position_embeddings", json!(1 << 24)),
            ("vocab_size", json!(null)),
            ("layer_norm_eps", json!(1e300)),
            ("layer_norm_eps", json!(-1e-5)),
            ("layer_norm_eps", json!("1e-5")),
            ("rotary_emb_base", json!(0)),
            ("rotary_emb_base", json!(1e300)),
            ("rotary_pct", json!(-0.25)),
            ("use_parallel_residual", json!("yes")),
            ("attention_bias", json!(null)),
            ("tie_word_embeddings", json!(1)),
            ("quantization_config", json!({"bits": 4})),
        ] {
            let error = read(|keys| keys[key] = value.clone()).unwrap_err();
            assert!(error.contains(&format!("`{key}`")), "{value}: {error}");
        }
        // Of no consequence when nothing is trained.
        let expected = read(|_| {});
        for (key, value) in [
            ("attention_dropout", json!(0.1)),
            ("hidden_dropout", json!(0.1)),
            ("head_dim", json!(64)),
            ("rope_scaling", json!(null)),
            ("quantization_config", json!(null)),
        ] {
            assert_eq!(read(|keys| keys[key] = value), expected, "{key}");
        }
    }
}
