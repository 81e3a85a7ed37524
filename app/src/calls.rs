//! Calls of server functions from pages: lists that load again, forms that keep what was typed, changes that are followed
//! until they are enforced. The one place where errors of calls turn into what people see.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use leptos::prelude::*;
use leptos::task::spawn_local;
use policy::fields::FieldError;

use crate::browser;
use crate::enforcement::pill::Saving;
use crate::error::ApiError;
use crate::look::Look;
use crate::ui::confirm::{Confirm, Question};
use crate::ui::step_up::StepUp;
use crate::ui::toast::Toasts;

/// Data that a page shows and loads again; the data of before stays until new arrives.
#[derive(Debug)]
pub(crate) struct Loader<T: Send + Sync + 'static> {
    /// The newest data that arrived.
    pub(crate) data: RwSignal<Option<T>>,
    /// Why the newest call brought none.
    pub(crate) error: RwSignal<Option<ApiError>>,
    /// Whether a call is under way.
    pub(crate) busy: RwSignal<bool>,
    ticket: StoredValue<u32>,
}

impl<T: Send + Sync + 'static> Clone for Loader<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Send + Sync + 'static> Copy for Loader<T> {}

impl<T: Send + Sync + 'static> Loader<T> {
    /// Begins with what the page came with.
    pub(crate) fn new(first: Result<T, ApiError>) -> Self {
        let (data, error) = match first {
            Ok(data) => (Some(data), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            data: RwSignal::new(data),
            error: RwSignal::new(error),
            busy: RwSignal::new(false),
            ticket: StoredValue::new(0),
        }
    }

    /// Whether the page that it belongs to is no longer shown, so that nothing of it may be read.
    pub(crate) fn is_gone(self) -> bool {
        self.ticket.try_get_value().is_none()
    }

    /// Loads again. When a later call was begun meanwhile, this one's answer is dropped.
    pub(crate) fn load(self, call: impl Future<Output = Result<T, ApiError>> + 'static) {
        let ticket = self.ticket.get_value().wrapping_add(1);
        self.ticket.set_value(ticket);
        self.busy.set(true);
        spawn_local(async move {
            let answer = call.await;
            if self.ticket.try_get_value() != Some(ticket) {
                return;
            }
            self.busy.set(false);
            match answer {
                Ok(data) => {
                    self.error.set(None);
                    self.data.set(Some(data));
                }
                Err(error) => {
                    leave_if_signed_out(&error);
                    self.error.set(Some(error));
                }
            }
        });
    }
}

/// Whoever's session ended meanwhile logs in again and comes back.
pub(crate) fn leave_if_signed_out(error: &ApiError) {
    if matches!(error, ApiError::SignedOut | ApiError::SecondFactorNeeded) {
        browser::load_login();
    }
}

/// What changes of a page need: where to tell how it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls {
    /// Short messages.
    pub(crate) toasts: Toasts,
    confirm: Confirm,
    step_up: StepUp,
    saving: Saving,
}

impl Calls {
    /// The page's; for the set-up of a component.
    pub(crate) fn of_page() -> Self {
        Self {
            toasts: expect_context(),
            confirm: expect_context(),
            step_up: expect_context(),
            saving: expect_context(),
        }
    }

    /// Asks before something that hurts others or can't be undone.
    pub(crate) fn ask(self, question: Question) {
        self.confirm.ask(question);
    }

    /// Changes something outside of a form. Errors are told in a toast.
    pub(crate) fn change<T: 'static>(
        self,
        call: impl Future<Output = Result<T, ApiError>> + 'static,
        done: impl FnOnce(T) + 'static,
    ) {
        self.follow(Box::pin(async move { call.await.map(done) }), None);
    }

    /// The same for what may ask for a fresh second factor, after which the call is made again.
    pub(crate) fn change_access<T: 'static, F: Future<Output = Result<T, ApiError>> + 'static>(
        self,
        call: impl Fn() -> F + Send + Sync + 'static,
        done: impl Fn(T) + Clone + Send + Sync + 'static,
    ) {
        self.try_access(Arc::new(move || -> Work {
            let (answer, done) = (call(), done.clone());
            Box::pin(async move { answer.await.map(done) })
        }));
    }

    fn try_access(self, attempt: Arc<dyn Fn() -> Work + Send + Sync>) {
        let work = attempt();
        self.follow(work, Some(Callback::new(move |()| self.try_access(Arc::clone(&attempt)))));
    }

    fn follow(self, work: Work, again: Option<Callback<()>>) {
        self.saving.begin();
        spawn_local(async move {
            let answer = work.await;
            self.saving.end();
            match (answer, again) {
                (Ok(()), _) => {}
                (Err(ApiError::StepUpNeeded), Some(again)) => self.step_up.ask(move || again.run(())),
                (Err(error), _) => {
                    leave_if_signed_out(&error);
                    self.toasts.fail(&error);
                }
            }
        });
    }
}

/// A call and what is done after it. Boxed, so that what surrounds calls exists once and not once per call.
type Work = Pin<Box<dyn Future<Output = Result<(), ApiError>>>>;

/// A call that can be made again, insisting.
type Attempt = Arc<dyn Fn(bool) -> Work + Send + Sync>;

/// A form under way: what is wrong with it and whether it is being sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FormState {
    /// Whether it is being sent.
    pub(crate) busy: RwSignal<bool>,
    fields: RwSignal<Vec<FieldError>>,
    message: RwSignal<Option<String>>,
    calls: Calls,
}

impl FormState {
    /// A form that nobody has sent yet.
    pub(crate) fn new() -> Self {
        Self {
            busy: RwSignal::new(false),
            fields: RwSignal::new(Vec::new()),
            message: RwSignal::new(None),
            calls: Calls::of_page(),
        }
    }

    /// What is wrong with a field.
    pub(crate) fn field(self, name: &str) -> Option<String> {
        self.fields.look(|fields| fields.iter().find(|field| field.field == name).map(|field| field.message.clone()))
    }

    /// All fields that are wrong.
    pub(crate) fn wrong_fields(self) -> Vec<FieldError> {
        self.fields.get()
    }

    /// What is wrong with the whole.
    pub(crate) fn message(self) -> Option<String> {
        self.message.get()
    }

    /// Shows what is wrong as it is known before sending.
    pub(crate) fn refuse(self, fields: Vec<FieldError>) {
        self.fields.set(fields);
        self.message.set(None);
        browser::focus_soon("[aria-invalid=true]".to_owned());
    }

    /// Shows or clears what is wrong with one field while it is typed.
    pub(crate) fn set_field(self, name: &str, wrong: Option<String>) {
        self.fields.update(|fields| {
            fields.retain(|field| field.field != name);
            fields.extend(wrong.map(|message| FieldError::new(name, message)));
        });
    }

    /// Forgets what was wrong.
    pub(crate) fn clear(self) {
        self.fields.set(Vec::new());
        self.message.set(None);
    }

    /// Sends the form. `call` gets whether to insist: when the server advises against it, the person is asked, and the
    /// same call is made once more with `true`. What was typed stays whatever the answer is.
    pub(crate) fn send<T, F, C>(self, insist: &'static str, call: C, done: impl Fn(T) + Clone + Send + Sync + 'static)
    where
        T: 'static,
        F: Future<Output = Result<T, ApiError>> + 'static,
        C: Fn(bool) -> F + Send + Sync + 'static,
    {
        let attempt = move |insisting: bool| -> Work {
            let (answer, done) = (call(insisting), done.clone());
            Box::pin(async move { answer.await.map(done) })
        };
        self.attempt(false, insist, Arc::new(attempt));
    }

    fn attempt(self, insisting: bool, insist: &'static str, attempt: Attempt) {
        // Asked again after a question, the form may be gone.
        if self.busy.try_get_untracked() != Some(false) {
            return;
        }
        self.busy.set(true);
        self.calls.saving.begin();
        let work = attempt(insisting);
        spawn_local(async move {
            let answer = work.await;
            self.calls.saving.end();
            // The form may be gone by now; what it did is still told.
            let _ = self.busy.try_set(false);
            match answer {
                Ok(()) => self.clear_if_there(),
                Err(ApiError::NeedsInsisting { message }) => {
                    let again = move || self.attempt(true, insist, attempt.clone());
                    self.calls.confirm.ask(Question::new("Are you sure?", message, insist, again));
                }
                Err(ApiError::StepUpNeeded) => {
                    self.calls.step_up.ask(move || self.attempt(insisting, insist, attempt.clone()));
                }
                Err(error) => self.show(error),
            }
        });
    }

    fn clear_if_there(self) {
        let _ = self.fields.try_set(Vec::new());
        let _ = self.message.try_set(None);
    }

    /// Shows an error of a call.
    pub(crate) fn show(self, error: ApiError) {
        leave_if_session_ended(&error);
        let message = error.to_string();
        let ApiError::Invalid { fields } = error else {
            let _ = self.message.try_set(Some(message));
            return;
        };
        // A field that this form doesn't show is told above the form.
        let shown = fields.iter().any(|field| browser::has_field(&field.field));
        let _ = self.message.try_set((!shown).then_some(message));
        let _ = self.fields.try_set(fields);
        browser::focus_soon("[aria-invalid=true]".to_owned());
    }
}

/// In forms a missing second factor or session is told in words on the login pages themselves.
fn leave_if_session_ended(error: &ApiError) {
    let path = leptos::prelude::window().location().pathname().unwrap_or_default();
    let logging_in = ["/login", "/sign-up", "/verify", "/forgot", "/reset"].iter().any(|start| path.starts_with(start));
    if !logging_in {
        leave_if_signed_out(error);
    }
}
