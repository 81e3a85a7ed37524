//! The frame of every action on a tenant: permission, transaction, audit row, notification, commit. A refusal changes nothing and
//! leaves its own audit row.

use std::net::IpAddr;

use policy::audit::Outcome;
use policy::authz::{Need, Operation};
use policy::ids::{AuditId, TenantId};
use policy::metrics::{ACTION_SECONDS, ACTIONS, Metric};
use serde_json::{Map, Value};
use store::TenantTx;
use store::audit::NewAuditRow;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use crate::bus::{self, Topic};
use crate::caller::Caller;
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::{step, trace};

/// Who does something, for the audit log.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub tenant_id: TenantId,
    /// An e-mail address, `pbx NAME`, or `system`.
    pub name: String,
    /// From where; `None` for the system itself.
    pub address: Option<IpAddr>,
}

impl From<&Caller> for Actor {
    fn from(caller: &Caller) -> Self {
        Self { tenant_id: caller.tenant_id, name: caller.email.clone(), address: Some(caller.address) }
    }
}

/// Something being done in a tenant.
pub(crate) struct Act<'a> {
    ctx: &'a Ctx,
    actor: Actor,
    operation: Operation,
    /// The transaction to write in.
    pub tx: TenantTx,
    /// The instant of the whole action.
    pub now: OffsetDateTime,
    subject: String,
    details: Map<String, Value>,
    /// Rows that others have in the audit log for their part.
    others: Vec<NewAuditRow>,
    topics: Vec<Topic>,
    /// What is counted once it is kept: a metric, its label and how many.
    counts: Vec<(&'static Metric, &'static str, u64)>,
    began: Instant,
    span: Span,
}

impl<'a> Act<'a> {
    /// Begins, if the caller's role allows the operation, and her second factor is as fresh as it asks for.
    pub(crate) async fn begin(ctx: &'a Ctx, caller: &Caller, operation: Operation) -> Result<Self, ActError> {
        let act = Self::begin_as(ctx, caller.into(), operation).await?;
        let allowed = match operation.need() {
            Need::Permission(permission) => caller.role.may(permission),
            Need::Nothing | Need::Password | Need::Session => true,
            Need::EnrolmentToken | Need::PbxCertificate => false,
        };
        if !allowed {
            return act.finish(Err(ActError::Forbidden)).await;
        }
        if operation.needs_fresh_factor()
            && let Err(error) = act.require_fresh_factor(caller)
        {
            return act.finish(Err(error)).await;
        }
        Ok(act)
    }

    /// For what asks for a fresh second factor only as it is meant here.
    pub(crate) fn require_fresh_factor(&self, caller: &Caller) -> Result<(), ActError> {
        if caller.is_fresh(self.now) { Ok(()) } else { Err(ActError::StepUpNeeded) }
    }

    /// Begins for somebody whose right to it has been checked by other means: an agent's certificate, a login in progress.
    pub(crate) async fn begin_as(ctx: &'a Ctx, actor: Actor, operation: Operation) -> Result<Self, ActError> {
        let tx = if operation == Operation::LinkAgent {
            ctx.store().tenant_for_agents(actor.tenant_id).await?
        } else {
            ctx.store().tenant(actor.tenant_id).await?
        };
        Ok(Self::begin_in(ctx, tx, actor, operation))
    }

    /// The same, in a transaction that has begun.
    pub(crate) fn begin_in(ctx: &'a Ctx, tx: TenantTx, actor: Actor, operation: Operation) -> Self {
        let now = ctx.now();
        Self {
            ctx,
            actor,
            operation,
            tx,
            now,
            subject: String::new(),
            details: Map::new(),
            others: Vec::new(),
            topics: Vec::new(),
            counts: Vec::new(),
            began: Instant::now(),
            span: step!("action", operation = operation.path()),
        }
    }

    /// Names what it is done to, for the audit log.
    pub(crate) fn subject(&mut self, subject: impl ToString) {
        self.subject = subject.to_string();
    }

    /// Notes a detail for the audit log. Never a secret.
    pub(crate) fn detail(&mut self, name: &str, value: impl Into<Value>) {
        self.details.insert(name.to_owned(), value.into());
    }

    /// What was noted so far is the part of `actor`, who gets an audit row of his own for it.
    pub(crate) fn also_by(&mut self, actor: Actor) {
        let (subject, details) = (std::mem::take(&mut self.subject), std::mem::take(&mut self.details));
        self.others.push(row(&actor, self.operation, Outcome::Done, &subject, details, self.now));
        self.publish(Topic::Audit);
    }

    /// Tells at commit that something changed.
    pub(crate) fn publish(&mut self, topic: Topic) {
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
    }

    /// Counts at commit, under the only label that the metric has.
    pub(crate) fn count(&mut self, metric: &'static Metric, label: &'static str, many: usize) {
        self.counts.push((metric, label, many as u64));
    }

    /// Raises the revision of the tenant's policy, so that all its PBXes get the new one.
    pub(crate) async fn raise_revision(&mut self) -> Result<(), ActError> {
        let revision = store::tenants::raise_revision(&mut self.tx, trace::parent_of(&self.span).as_ref()).await?;
        self.detail("revision", revision);
        self.publish(Topic::Policy);
        Ok(())
    }

    /// Says that a stream of the tenant's agents may have to end, and sees to it that every node looks.
    pub(crate) async fn raise_roster(&mut self) -> Result<(), ActError> {
        store::tenants::raise_roster(&mut self.tx).await?;
        self.publish(Topic::Roster);
        Ok(())
    }

    /// Ends it without an audit row of its own: for what others have audited, such as heartbeats and expiries.
    pub(crate) async fn finish_quietly(self) -> Result<(), ActError> {
        let Self { ctx, mut tx, topics, counts, operation, began, others, .. } = self;
        if !others.is_empty() {
            store::audit::append(&mut tx, others).await?;
        }
        bus::commit(ctx, tx, topics).await?;
        measure(operation, "done", began, &counts);
        Ok(())
    }

    /// Ends it: on success writes the audit row, publishes and commits; on failure takes everything back and audits the refusal.
    pub(crate) async fn finish<T>(self, result: Result<T, ActError>) -> Result<T, ActError> {
        let Self {
            ctx,
            actor,
            operation,
            mut tx,
            now,
            subject,
            details,
            others: mut rows,
            mut topics,
            counts,
            began,
            span,
        } = self;
        match result {
            Ok(value) => {
                if operation.changes() {
                    rows.push(row(&actor, operation, Outcome::Done, &subject, details, now));
                    store::audit::append(&mut tx, rows).await?;
                    if !topics.contains(&Topic::Audit) {
                        topics.push(Topic::Audit);
                    }
                }
                bus::commit(ctx, tx, topics).instrument(step_in(&span)).await?;
                measure(operation, "done", began, &counts);
                Ok(value)
            }
            Err(error) => {
                tx.rollback().await?;
                let outcome = if matches!(error, ActError::Internal { .. }) { "failed" } else { "refused" };
                measure(operation, outcome, began, &[]);
                let audited = operation.changes() || matches!(error, ActError::Forbidden);
                if audited && !matches!(error, ActError::Internal { .. }) {
                    refused(ctx, &actor, operation, subject, details, &error).await?;
                }
                Err(error)
            }
        }
    }
}

/// The commit, within its action.
fn step_in(action: &Span) -> Span {
    if action.is_disabled() {
        return Span::none();
    }
    tracing::info_span!(target: trace::TARGET, parent: action, "commit")
}

fn measure(
    operation: Operation,
    outcome: &'static str,
    began: Instant,
    counts: &[(&'static Metric, &'static str, u64)],
) {
    let path = operation.path();
    metrics::counter!(ACTIONS.name, "operation" => path, "outcome" => outcome).increment(1);
    metrics::histogram!(ACTION_SECONDS.name, "operation" => path).record(began.elapsed());
    for (metric, label, many) in counts {
        for name in metric.labels {
            metrics::counter!(metric.name, *name => *label).increment(*many);
        }
    }
}

fn row(
    actor: &Actor,
    operation: Operation,
    outcome: Outcome,
    subject: &str,
    details: Map<String, Value>,
    at: OffsetDateTime,
) -> NewAuditRow {
    NewAuditRow {
        id: AuditId(Uuid::now_v7()),
        at,
        actor: printable(&actor.name),
        action: operation.path(),
        outcome,
        subject: printable(subject),
        details: Value::Object(details).to_string(),
        source: actor.address.map(|address| address.to_string()).unwrap_or_default(),
    }
}

/// What somebody typed may hold anything; the log, and PostgreSQL, take no control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

async fn refused(
    ctx: &Ctx,
    actor: &Actor,
    operation: Operation,
    subject: String,
    mut details: Map<String, Value>,
    error: &ActError,
) -> Result<(), ActError> {
    details.insert("refused".to_owned(), error.to_string().into());
    let mut tx = ctx.store().tenant(actor.tenant_id).await?;
    let row = row(actor, operation, Outcome::Refused, &subject, details, ctx.now());
    store::audit::append(&mut tx, vec![row]).await?;
    bus::commit(ctx, tx, [Topic::Audit]).await
}
