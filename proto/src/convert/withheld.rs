//! What an agent withholds, and what it found in its firewall.

use policy::safety::{Change, Drift, WITHHELD_MAX, Withheld};

use super::{WireError, fields};
use crate::pb;

/// Longest reason and longest line.
const TEXT_MAX_CHARS: usize = 300;

impl From<&Withheld> for pb::WithheldChange {
    fn from(withheld: &Withheld) -> Self {
        let change = match &withheld.change {
            Change::Policy(revision) => pb::withheld_change::Change::PolicyRevision(*revision),
            Change::Ban(net) => pb::withheld_change::Change::Ban(net.to_string()),
        };
        Self {
            change: Some(change),
            at_ms: fields::to_ms(withheld.at),
            rolled_back: withheld.rolled_back,
            reason: fields::clean(&withheld.reason, TEXT_MAX_CHARS),
            lines: withheld.lines.iter().take(WITHHELD_MAX).map(|line| fields::clean(line, TEXT_MAX_CHARS)).collect(),
        }
    }
}

impl TryFrom<pb::WithheldChange> for Withheld {
    type Error = WireError;

    fn try_from(wire: pb::WithheldChange) -> Result<Self, WireError> {
        let change = match wire.change.ok_or_else(|| WireError::new("withheld.change", "missing"))? {
            pb::withheld_change::Change::PolicyRevision(revision) => {
                Change::Policy(fields::number("withheld.policy_revision", revision)?)
            }
            pb::withheld_change::Change::Ban(net) => Change::Ban(fields::net("withheld.ban", &net)?),
        };
        fields::at_most("withheld.lines", wire.lines.len(), WITHHELD_MAX)?;
        let text = |text| fields::text("withheld.text", text, TEXT_MAX_CHARS);
        Ok(Self {
            change,
            at: fields::instant_ms("withheld.at_ms", wire.at_ms)?,
            rolled_back: wire.rolled_back,
            reason: text(wire.reason)?,
            lines: wire.lines.into_iter().map(text).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Drift> for pb::Drift {
    fn from(drift: &Drift) -> Self {
        Self {
            at_ms: fields::to_ms(drift.at),
            found: drift.found.iter().take(WITHHELD_MAX).map(|text| fields::clean(text, TEXT_MAX_CHARS)).collect(),
            repaired: drift.repaired,
        }
    }
}

impl TryFrom<pb::Drift> for Drift {
    type Error = WireError;

    fn try_from(wire: pb::Drift) -> Result<Self, WireError> {
        fields::at_most("drift.found", wire.found.len(), WITHHELD_MAX)?;
        Ok(Self {
            at: fields::instant_ms("drift.at_ms", wire.at_ms)?,
            found: wire
                .found
                .into_iter()
                .map(|text| fields::text("drift.found", text, TEXT_MAX_CHARS))
                .collect::<Result<_, _>>()?,
            repaired: wire.repaired,
        })
    }
}

pub(super) fn to_wire(withheld: &[Withheld]) -> pb::Withheld {
    pb::Withheld { changes: withheld.iter().take(WITHHELD_MAX).map(Into::into).collect() }
}

pub(super) fn all(wire: pb::Withheld) -> Result<Vec<Withheld>, WireError> {
    fields::at_most("withheld.changes", wire.changes.len(), WITHHELD_MAX)?;
    wire.changes.into_iter().map(Withheld::try_from).collect()
}
