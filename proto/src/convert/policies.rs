//! The policy of a tenant.

use policy::allowed_ips::{self, AllowedTarget};
use policy::blocked_ips::MAX_BAN_SECONDS;
use policy::detection::DetectionRule;
use policy::net;
use policy::safety::PhoneLossLimit;
use policy::snapshot::{AllowedEntry, PolicySnapshot};
use policy::trace_parent::TraceParent;

use super::{WireError, fields};
use crate::pb;

/// Most allowed entries of a policy.
pub const ALLOWED_MAX: usize = 10_000;

/// Longest ban and longest window that a rule may name.
#[expect(clippy::cast_possible_truncation, reason = "a year in seconds fits")]
const SECONDS_MAX: u32 = MAX_BAN_SECONDS as u32;

impl From<&PolicySnapshot> for pb::Policy {
    fn from(policy: &PolicySnapshot) -> Self {
        let DetectionRule { failures, window_seconds, ban_seconds, max_ban_seconds } = policy.detection;
        Self {
            revision: policy.revision,
            digest: policy.digest().to_vec(),
            allowed: policy.allowed.iter().map(Into::into).collect(),
            detection: Some(pb::DetectionRule { failures, window_seconds, ban_seconds, max_ban_seconds }),
            phone_loss_limit_percent: Some(policy.phone_loss_limit.percent()),
            trace_parent: policy.trace_parent.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<pb::Policy> for PolicySnapshot {
    type Error = WireError;

    /// Also checks the digest: a snapshot that it does not fit is damaged.
    fn try_from(wire: pb::Policy) -> Result<Self, WireError> {
        fields::at_most("policy.allowed", wire.allowed.len(), ALLOWED_MAX)?;
        let policy = Self {
            revision: fields::number("policy.revision", wire.revision)?,
            allowed: wire.allowed.into_iter().map(AllowedEntry::try_from).collect::<Result<_, _>>()?,
            detection: wire.detection.ok_or_else(|| WireError::new("policy.detection", "missing"))?.try_into()?,
            // Servers of the first version don't say.
            phone_loss_limit: wire.phone_loss_limit_percent.map_or_else(
                || Ok(PhoneLossLimit::default()),
                |percent| {
                    PhoneLossLimit::try_from(percent)
                        .map_err(|problem| WireError::new("policy.phone_loss_limit_percent", problem))
                },
            )?,
            // One that is none is no reason to refuse a policy.
            trace_parent: wire.trace_parent.as_deref().and_then(TraceParent::parse),
        };
        if policy.digest() == fields::bytes::<32>("policy.digest", &wire.digest)? {
            Ok(policy)
        } else {
            Err(WireError::new("policy.digest", "does not fit the content"))
        }
    }
}

impl From<&AllowedEntry> for pb::AllowedEntry {
    fn from(entry: &AllowedEntry) -> Self {
        let target = match &entry.target {
            AllowedTarget::Net(net) => pb::allowed_entry::Target::Net(net::display(net)),
            AllowedTarget::Domain(name) => pb::allowed_entry::Target::Domain(name.clone()),
        };
        Self { target: Some(target), expires_at: fields::to_seconds(entry.expires_at) }
    }
}

impl TryFrom<pb::AllowedEntry> for AllowedEntry {
    type Error = WireError;

    fn try_from(wire: pb::AllowedEntry) -> Result<Self, WireError> {
        let target = match wire.target.ok_or_else(|| WireError::new("allowed.target", "missing"))? {
            pb::allowed_entry::Target::Net(text) => AllowedTarget::Net(fields::net("allowed.net", &text)?),
            pb::allowed_entry::Target::Domain(name) => match allowed_ips::parse_target(&name) {
                Ok(AllowedTarget::Domain(kept)) if kept == name => AllowedTarget::Domain(kept),
                Ok(_) => return Err(WireError::new("allowed.domain", "not a canonical domain name")),
                Err(problem) => return Err(WireError::new("allowed.domain", problem)),
            },
        };
        Ok(Self { target, expires_at: fields::expiry("allowed.expires_at", wire.expires_at)? })
    }
}

impl TryFrom<pb::DetectionRule> for DetectionRule {
    type Error = WireError;

    fn try_from(wire: pb::DetectionRule) -> Result<Self, WireError> {
        let ban_seconds = fields::within("detection.ban_seconds", wire.ban_seconds, 1..=SECONDS_MAX)?;
        Ok(Self {
            failures: fields::within("detection.failures", wire.failures, 1..=10_000)?,
            window_seconds: fields::within("detection.window_seconds", wire.window_seconds, 1..=SECONDS_MAX)?,
            ban_seconds,
            max_ban_seconds: fields::within(
                "detection.max_ban_seconds",
                wire.max_ban_seconds,
                ban_seconds..=SECONDS_MAX,
            )?,
        })
    }
}
