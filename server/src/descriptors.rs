//! How many connections and files this process may have open, and how the two ports share them: neither can take what the
//! other one and the database need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept free for files, listeners, the log, and PostgreSQL's listener.
const OTHERS: usize = 100;
/// More connections of browsers than this are an attack, however many descriptors there are: each takes memory.
const MOST_OF_BROWSERS: usize = 8_192;

/// Raises the limit of this process to what the system allows it.
pub fn raise_limit() {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before });
        if let Err(error) = raised {
            tracing::warn!(%error, "raising the limit of open files");
        }
    }
    tracing::info!(descriptors = limit(), "Limit of open files and connections");
}

/// Most connections of agents: half of all.
pub fn of_agents() -> usize {
    limit() / 2
}

/// Most connections of browsers: the other half, without what is kept for the database and the rest.
pub fn of_browsers(database_connections: u32) -> usize {
    browsers_share(limit(), usize::try_from(database_connections).unwrap_or(usize::MAX))
}

fn browsers_share(limit: usize, database_connections: usize) -> usize {
    // Never none: somebody has to be able to see the portal in which this is set too low.
    (limit / 2).saturating_sub(database_connections.saturating_add(OTHERS)).clamp(OTHERS, MOST_OF_BROWSERS)
}

fn limit() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|current| usize::try_from(current).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_leave_room_for_agents_and_the_database() {
        assert_eq!(browsers_share(1_024, 20), 392);
        assert_eq!(browsers_share(4_096, 20), 1_928);
        assert_eq!(browsers_share(1_048_576, 20), MOST_OF_BROWSERS);
        assert_eq!(browsers_share(256, 1_000), OTHERS);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be() {
        raise_limit();
        let raised = getrlimit(Resource::Nofile);
        assert_eq!(raised.current, raised.maximum);
    }
}
