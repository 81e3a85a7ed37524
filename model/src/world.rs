//! Everything there is, what may happen to it, and what must hold whatever happens.

use stateright::{Model, Property};

use agent::state::Record;
use policy::bans::BanEntry;
use policy::ids::BanId;
use uuid::Uuid;

use crate::agent::{Agent, Write};
use crate::server::{Database, Node, Stream};
use crate::{Budget, Flaw, Setup, ToServer, detected, source};

/// Sources of attacks.
const SOURCES: u8 = 2;
/// With so many steps everything must have come to rest.
const STEPS: usize = 300;

/// A tenant, its agents, the nodes of the portal, and the network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    db: Database,
    nodes: Vec<Node>,
    streams: Vec<Stream>,
    agents: Vec<Agent>,
    budget: Budget,
    streams_made: u8,
    bans_made: u8,
    /// Bans that agents made.
    detected: Vec<Detection>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Detection {
    agent: usize,
    id: BanId,
    entry: BanEntry,
    /// The agent was killed before it was on disk.
    lost: bool,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The permission is granted or revoked.
    Edit,
    /// A source is blocked by hand.
    Block(u8),
    /// The ban of a source is lifted.
    Lift(u8),
    /// An agent is attacked from a source.
    Detect(usize, u8),
    /// The stream of an agent breaks; what was on its way to the agent gets there or not.
    Break(usize, bool),
    /// An agent is killed with so many writes on disk, or its machine loses power.
    KillAgent(usize, usize, bool),
    /// A node is killed; what was on its way to agents gets there or not.
    KillNode(u8, bool),
    /// An agent opens a stream to a node.
    Connect(usize, u8),
    /// The server hears the next message of a stream.
    Hear(u8),
    /// The server sends what is due on a stream; with a new reading of the policy or not.
    Send(u8, bool),
    /// An agent works off the next message.
    Deliver(usize),
    /// The server notices that a stream has ended; what it hasn't heard yet it never hears.
    End(u8),
    /// The server ends a stream that isn't the PBX's any more.
    Evict(u8),
    /// A node looks for what it wasn't told of.
    Look(u8),
    /// A node without streams forgets the tenant.
    Forget(u8),
    /// An agent puts bans that it hasn't reported into a batch.
    Batch(usize),
    /// A policy that was acknowledged gets to the disk.
    Keep(usize),
}

impl World {
    fn new(setup: &Setup) -> Self {
        Self {
            db: Database::new(setup.agents),
            nodes: vec![Node::default(); setup.nodes.into()],
            streams: Vec::new(),
            agents: vec![Agent::new(); setup.agents.into()],
            budget: setup.budget,
            streams_made: 0,
            bans_made: 0,
            detected: Vec::new(),
        }
    }

    /// What people, attackers and accidents may do.
    fn happenings(&self, actions: &mut Vec<Action>) {
        let budget = self.budget;
        if budget.edits > 0 {
            actions.push(Action::Edit);
        }
        if budget.blocks > 0 {
            actions.extend((0..SOURCES).map(Action::Block));
        }
        if budget.lifts > 0 {
            let banned = self.db.entries();
            let lifts = (0..SOURCES).filter(|number| banned.iter().any(|entry| entry.net == source(*number).net));
            actions.extend(lifts.map(Action::Lift));
        }
        for (index, agent) in self.agents.iter().enumerate() {
            if budget.detections > 0 {
                let banned = agent.book.entries();
                let attacks =
                    (0..SOURCES).filter(|number| !banned.iter().any(|entry| entry.net == source(*number).net));
                actions.extend(attacks.map(|number| Action::Detect(index, number)));
            }
            if budget.breaks > 0
                && let Some(stream) = self.stream_of(index)
            {
                actions.push(Action::Break(index, false));
                if !stream.down.is_empty() {
                    actions.push(Action::Break(index, true));
                }
            }
            if budget.agent_kills > 0 {
                actions.extend((1..=agent.log.len()).map(|written| Action::KillAgent(index, written, false)));
            }
            if budget.power_cuts > 0 {
                actions.extend((1..=agent.log.len()).map(|written| Action::KillAgent(index, written, true)));
            }
        }
        for (number, node) in (0..).zip(&self.nodes) {
            let mut streams = self.streams.iter().filter(|stream| stream.node == number).peekable();
            if streams.peek().is_none() {
                if *node != Node::default() {
                    actions.push(Action::Forget(number));
                    if node.has_news(&self.db) {
                        actions.push(Action::Look(number));
                    }
                }
            } else if budget.node_kills > 0 {
                actions.push(Action::KillNode(number, false));
                if streams.any(|stream| !stream.down.is_empty()) {
                    actions.push(Action::KillNode(number, true));
                }
            }
        }
    }

    /// What the protocol does by itself; when there is nothing, it is at rest.
    fn steps(&self, setup: &Setup, actions: &mut Vec<Action>) {
        for (index, agent) in self.agents.iter().enumerate() {
            if agent.stream.is_none() && (agent.inbox.is_empty() || setup.has(Flaw::SaysHelloTooEarly)) {
                actions.extend((0..setup.nodes).map(|node| Action::Connect(index, node)));
            }
            if !agent.inbox.is_empty() || self.stream_of(index).is_some_and(|stream| !stream.down.is_empty()) {
                actions.push(Action::Deliver(index));
            }
            if !agent.unreported.is_empty() {
                actions.push(Action::Batch(index));
            }
            if setup.has(Flaw::AcknowledgesBeforeKeeping) && agent.kept_policy != agent.policy {
                actions.push(Action::Keep(index));
            }
        }
        for stream in &self.streams {
            if !stream.up.is_empty() {
                actions.push(Action::Hear(stream.id));
            }
            if !stream.open {
                actions.push(Action::End(stream.id));
            }
            if stream.is_to_end(&self.db, setup) {
                actions.push(Action::Evict(stream.id));
            }
            let sends = stream.sends(&self.db, &self.nodes[usize::from(stream.node)], setup);
            actions.extend(sends.into_iter().map(|anew| Action::Send(stream.id, anew)));
        }
        for (number, node) in (0..).zip(&self.nodes) {
            if node.has_news(&self.db) && self.streams.iter().any(|stream| stream.node == number && stream.open) {
                actions.push(Action::Look(number));
            }
        }
    }

    fn stream_of(&self, agent: usize) -> Option<&Stream> {
        let id = self.agents[agent].stream?;
        self.streams.iter().find(|stream| stream.id == id)
    }

    fn stream(&mut self, id: u8) -> Option<(usize, &mut Stream)> {
        self.streams.iter_mut().enumerate().find(|(_, stream)| stream.id == id)
    }

    fn ban_id(&mut self) -> (u8, BanId) {
        self.bans_made += 1;
        (self.bans_made, BanId(Uuid::from_u128(self.bans_made.into())))
    }

    fn step(&mut self, action: Action, setup: &Setup) {
        match action {
            Action::Edit => {
                self.budget.edits -= 1;
                self.db.edit();
            }
            Action::Block(number) => {
                self.budget.blocks -= 1;
                let (_, id) = self.ban_id();
                self.db.block(id, source(number));
            }
            Action::Lift(number) => {
                self.budget.lifts -= 1;
                self.db.lift(&source(number));
            }
            Action::Detect(index, number) => {
                self.budget.detections -= 1;
                let (made, id) = self.ban_id();
                self.detected.push(Detection { agent: index, id, entry: source(number), lost: false });
                let says = self.agents[index].ban(detected(made, number), setup);
                self.say(index, says);
            }
            Action::Break(index, arrives) => {
                self.budget.breaks -= 1;
                self.cut(index, arrives);
            }
            Action::KillAgent(index, written, power_cut) => {
                if power_cut {
                    self.budget.power_cuts -= 1;
                } else {
                    self.budget.agent_kills -= 1;
                }
                self.cut(index, false);
                self.note_lost(index, written);
                self.agents[index].restart(written, power_cut, setup);
            }
            Action::KillNode(node, arrives) => {
                self.budget.node_kills -= 1;
                for index in 0..self.agents.len() {
                    if self.stream_of(index).is_some_and(|stream| stream.node == node) {
                        self.cut(index, arrives);
                    }
                }
                self.streams.retain(|stream| stream.node != node);
                self.nodes[usize::from(node)] = Node::default();
            }
            Action::Connect(index, node) => {
                self.streams_made += 1;
                let id = self.streams_made;
                let agent = &mut self.agents[index];
                agent.stream = Some(id);
                self.streams.push(Stream::new(id, u8::try_from(index).unwrap_or(u8::MAX), node, agent.hello()));
            }
            Action::Hear(id) => {
                if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
                    stream.hear(&mut self.db, &mut self.nodes[usize::from(stream.node)], setup);
                }
            }
            Action::Send(id, anew) => {
                if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
                    stream.send(&self.db, &mut self.nodes[usize::from(stream.node)], anew, setup);
                }
            }
            Action::Deliver(index) => self.deliver(index, setup),
            Action::End(id) => self.end(id),
            Action::Evict(id) => {
                if let Some(index) = self.agents.iter().position(|agent| agent.stream == Some(id)) {
                    self.cut(index, true);
                }
                self.end(id);
            }
            Action::Look(node) => {
                let (policy, bans) = self.nodes[usize::from(node)].look(&self.db);
                let streams = self.streams.iter_mut().filter(|stream| stream.node == node);
                streams.for_each(|stream| stream.changed(policy && setup.with_policy(), bans && setup.with_bans()));
            }
            Action::Forget(node) => self.nodes[usize::from(node)] = Node::default(),
            Action::Batch(index) => self.agents[index].report_bans(),
            Action::Keep(index) => self.agents[index].keep_policy(),
        }
        for (number, node) in (0..).zip(&mut self.nodes) {
            let (policy, bans) = node.take_just_read();
            let streams = self.streams.iter_mut().filter(|stream| stream.node == number);
            streams.for_each(|stream| stream.was_read(policy, bans));
        }
        if self.budget.agent_kills + self.budget.power_cuts == 0 {
            // What is on disk matters no more.
            self.agents.iter_mut().for_each(|agent| agent.log.clear());
        }
    }

    /// The server's end of a stream is gone.
    fn end(&mut self, id: u8) {
        if let Some((at, _)) = self.stream(id) {
            let ended = self.streams.remove(at);
            let pbx = &mut self.db.pbxes[usize::from(ended.agent)];
            pbx.stream = pbx.stream.filter(|stream| *stream != id);
        }
    }

    fn deliver(&mut self, index: usize, setup: &Setup) {
        if self.agents[index].hear_late(setup) {
            return;
        }
        let stream = self.agents[index].stream.and_then(|id| self.streams.iter_mut().find(|stream| stream.id == id));
        let Some(message) = stream.and_then(|stream| stream.down.pop_front()) else { return };
        match self.agents[index].hear(message, setup) {
            Some(says) => self.say(index, says),
            None => self.cut(index, false),
        }
    }

    fn say(&mut self, index: usize, says: Vec<ToServer>) {
        let agent = &self.agents[index];
        if let Some(id) = agent.stream.filter(|_| agent.up)
            && let Some((_, stream)) = self.stream(id)
        {
            stream.up.extend(says);
        }
    }

    /// The agent's end of its stream is gone.
    fn cut(&mut self, index: usize, arrives: bool) {
        let agent = &mut self.agents[index];
        if let Some(stream) = self.streams.iter_mut().find(|stream| agent.stream == Some(stream.id)) {
            stream.open = false;
            let before = std::mem::take(&mut stream.down);
            if arrives {
                agent.inbox.extend(before);
            }
        }
        agent.down();
    }

    fn note_lost(&mut self, index: usize, written: usize) {
        let unwritten = &self.agents[index].log[written..];
        for detection in self.detected.iter_mut().filter(|detection| detection.agent == index) {
            let own = |write: &Write| matches!(write, Write::Append(Record::Own(ban)) if ban.id == detection.id);
            detection.lost |= unwritten.iter().any(own);
        }
    }

    fn at_rest(&self, setup: &Setup) -> bool {
        let mut actions = Vec::new();
        self.steps(setup, &mut actions);
        actions.is_empty()
    }

    /// Everybody has the newest of everything, and it is shown so.
    fn agrees(&self, setup: &Setup) -> bool {
        let (policy, set) = (self.db.policy, self.db.set);
        let mut bans = self.db.entries();
        bans.sort_by_key(|entry| entry.net);
        let reported = |detection: &Detection| {
            let kept = self.db.bans.iter().filter(|ban| ban.id == detection.id).count();
            kept == 1 || (kept == 0 && self.db.held_by.iter().any(|(id, _)| *id == detection.id))
        };
        self.detected.iter().all(|detection| detection.lost || reported(detection))
            && self.agents.iter().zip(&self.db.pbxes).all(|(agent, shown)| {
                let has_policy = || {
                    agent.policy == Some(policy)
                        && agent.kept_policy == Some(policy)
                        && shown.revision == Some(policy.revision)
                };
                let has_bans = || {
                    agent.book.entries() == bans
                        && agent.book.synced() == Some(set)
                        && agent.book.pending().is_empty()
                        && agent.spool.is_empty()
                        && shown.ban_seq == Some(set.0)
                };
                agent.up
                    && shown.stream == agent.stream
                    && (has_policy() || !setup.with_policy())
                    && (has_bans() || !setup.with_bans())
            })
    }

    /// Whether the server has ended a ban that an agent made, or the one because of which it wasn't kept.
    fn is_ended(&self, id: BanId) -> bool {
        let ended = |id: BanId| self.db.bans.iter().any(|ban| ban.id == id && ban.ended);
        ended(id) || self.db.held_by.iter().any(|(held, by)| *held == id && ended(*by))
    }

    fn enforces_its_bans(&self) -> bool {
        self.detected.iter().all(|detection| {
            let banned = || self.agents[detection.agent].book.entries();
            detection.lost
                || self.is_ended(detection.id)
                || banned().iter().any(|entry| entry.net == detection.entry.net)
        })
    }

    fn comes_to_rest(&self, setup: &Setup) -> bool {
        let mut world = self.clone();
        let mut actions = Vec::new();
        for _ in 0..STEPS {
            actions.clear();
            world.steps(setup, &mut actions);
            let Some(action) = actions.first() else { return true };
            world.step(*action, setup);
        }
        false
    }
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// What is checked.
    pub setup: Setup,
    /// Whether it comes to rest from everywhere is checked, too; it takes long.
    pub rests: bool,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.setup)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.happenings(actions);
        world.steps(&self.setup, actions);
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        world.step(action, &self.setup);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always(NEWER_STAYS, |_, world| world.agents.iter().all(|agent| !agent.went_back)),
            Property::<Self>::always(SHOWN_IS_TRUE, |_, world| {
                let shown = world.agents.iter().zip(&world.db.pbxes);
                shown
                    .filter_map(|(agent, shown)| Some((agent.had, shown.revision?)))
                    .all(|(had, shown)| (had >> shown) & 1 == 1)
            }),
            Property::<Self>::always(BANS_STAY, |_, world| world.enforces_its_bans()),
            Property::<Self>::always(STORED_ONCE, |_, world| world.db.batches.iter().all(|(_, _, times)| *times == 1)),
            Property::<Self>::always(AT_REST_ALL_AGREE, |model, world| {
                !world.at_rest(&model.setup) || world.agrees(&model.setup)
            }),
            Property::<Self>::sometimes(ALL_HAPPENED, |model, world| {
                world.budget == Budget::default() && world.at_rest(&model.setup)
            }),
        ];
        if self.rests {
            properties.push(Property::<Self>::always(COMES_TO_REST, |model, world| world.comes_to_rest(&model.setup)));
        }
        properties
    }
}

/// An agent never goes back from a policy that it has told to be in force.
pub const NEWER_STAYS: &str = "a newer policy is never replaced by an older one";
/// What the portal shows as in force was.
pub const SHOWN_IS_TRUE: &str = "what is shown as in force was";
/// From the detection on, over reports, acknowledgements and restarts, until it is lifted.
pub const BANS_STAY: &str = "a ban that is on disk is enforced until it is lifted";
/// However often it is sent.
pub const STORED_ONCE: &str = "a batch is stored once";
/// Nothing is revoked and in force, no ban is lost, and the portal shows it.
pub const AT_REST_ALL_AGREE: &str = "when nothing is left to do, all have the newest of everything";
/// Else the bounds would make all of it true.
pub const ALL_HAPPENED: &str = "all that may happen has happened";
/// The protocol doesn't go round in circles.
pub const COMES_TO_REST: &str = "it comes to rest from everywhere";
