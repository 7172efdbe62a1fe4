// What operators do here: one dialog that says what will happen, asks which, and does it; the gateway notes who has done what.
'use strict';

const ACTIONS_URL = '/metrics/actions';
const PROOF = 'Mcp-Gateway-Proof';
const LEVELS = ['debug', 'info', 'warning', 'error'];
const ALONE = /^(event-log|cluster-member)$/;
const IN_A_CELL = /^(.*\/)?cell\/\d+(\/(?!.*supervisor).+)?$/;

const acting = { choices: [], isDoing: false };

// Who may not see clients may do nothing: the snapshot says neither.
const mayAct = () => Boolean(view.state && view.state.clients);

// choices: [{label, text, button, isHarsh, body}]; body as /metrics/actions takes it.
function askToAct(title, choices) {
    acting.choices = choices;
    setText($('action-title'), title);
    $('action-which').replaceChildren(...choices.map((choice, index) => new Option(choice.label, String(index))));
    $('action-choice').hidden = choices.length < 2;
    $('action-problem').hidden = true;
    showChoice();
    $('action').showModal();
}

function showChoice() {
    const choice = acting.choices[Number($('action-which').value)];
    setText($('action-text'), choice.text);
    setText($('action-do'), choice.button);
    $('action-do').className = choice.isHarsh ? 'harsh' : '';
    $('action-problem').hidden = true;
}

// A page of another site can have a browser send requests, but cannot read this proof, which is good for this browser alone.
async function proofOfThisPage() {
    const answer = await fetch(ACTIONS_URL, { cache: 'no-store' });
    if (answer.status === 401) location.reload();
    if (!answer.ok) throw new Error(await problemOf(answer));
    return (await answer.json()).proof;
}

async function problemOf(answer) {
    try {
        const { error } = await answer.json();
        return error.message;
    } catch {
        return `The gateway has answered with status ${answer.status}.`;
    }
}

async function act() {
    if (acting.isDoing) return;
    const choice = acting.choices[Number($('action-which').value)];
    acting.isDoing = $('action-do').disabled = true;
    $('action-problem').hidden = true;
    try {
        const headers = { 'Content-Type': 'application/json', [PROOF]: await proofOfThisPage() };
        const answer = await fetch(ACTIONS_URL, { method: 'POST', cache: 'no-store', headers, body: JSON.stringify(choice.body) });
        if (!answer.ok) throw new Error(await problemOf(answer));
        setText($('action-said'), `Done: ${(await answer.json()).text}.`);
        $('action').close();
    } catch (error) {
        $('action-problem').hidden = false;
        setText($('action-problem'), error instanceof TypeError ? 'The gateway does not answer.' : `Not done: ${error.message}`);
    } finally {
        acting.isDoing = $('action-do').disabled = false;
        schedule(100);
    }
}

function actionButton(text, label, onClick) {
    const button = make('button', 'act', text);
    button.type = 'button';
    button.setAttribute('aria-label', label);
    button.addEventListener('click', onClick);
    return button;
}

// ---- what can be done

function drainChoices(backend) {
    const choice = (isDraining, what, replica) => ({
        label: `${isDraining ? 'Undrain' : 'Drain'} ${what}`,
        text: isDraining ? `${what} gets sessions and calls again.` : `${what} gets no new sessions and no stateless calls. Sessions that are open go on, and nothing is cut.`,
        button: isDraining ? 'Undrain' : 'Drain',
        body: { command: isDraining ? 'undrain' : 'drain', name: backend.name, ...(replica ? { replica } : {}) },
    });
    const replicas = backend.replicas.length > 1 ? backend.replicas.map(replica => replica.address) : [];
    return [choice(backend.draining, backend.name), ...replicas.map(address => choice((backend.draining_replicas || []).includes(address), address, address))];
}

function restartChoices(tree) {
    const isEmbedded = tree.some(row => row.name === 'embedded');
    const names = flatTree(tree).map(row => row.name);
    return names.filter(name => ALONE.test(name) || (IN_A_CELL.test(name) && !(isEmbedded && /cell\/\d+$/.test(name)))).map(name => ({
        label: name,
        text: /cell\/\d+$/.test(name)
            ? `The process ${name} ends in order and starts again. Its clients are served by the other cells meanwhile, where there are any.`
            : `${name} starts again, and what depends on it. What it does just now is cut; clients hardly notice.`,
        button: 'Restart',
        isHarsh: true,
        body: { command: 'restart', child: name },
    }));
}

const levelChoices = () => LEVELS.map(level => ({
    label: level,
    text: `Every process of the gateway writes lines that are no less urgent than ${level}, until it is started anew.`,
    button: 'Set the level',
    body: { command: 'log-level', level },
}));

function clientChoices(client) {
    const choices = [];
    if (client.session) {
        choices.push({
            label: 'End this session', button: 'End the session', isHarsh: true,
            text: `The session of ${whoOf(client)} ends: what it has open is cut, and its servers are told. The client may open another one.`,
            body: { command: 'end-session', session: client.session },
        });
    }
    if (client.principal) {
        choices.push({
            label: 'Take access away', button: 'Take access away', isHarsh: true,
            text: `${client.principal} is refused from now on, whatever is shown, at every node, and what is open ends. It can be given back.`,
            body: { command: 'revoke', subject: client.principal },
        });
    }
    return choices;
}

function showActions(state) {
    const isAble = mayAct();
    for (const id of ['restart', 'level']) $(id).hidden = !isAble;
    setText($('level'), state.log_level ? `Level: ${state.log_level}…` : 'Level…');
    const revoked = state.revoked || [];
    $('revoked').hidden = revoked.length === 0;
    keep($('revoked-list'), revoked, name => name, name => make('li', '', make('span', 'mono', name), ' ',
        actionButton('Give back…', `Give access back to ${name}`, () => askToAct(`Give access back to ${name}`, [{
            label: name, text: `${name} may use the gateway again, with what the issuer gives.`, button: 'Give it back',
            body: { command: 'reinstate', subject: name },
        }]))), () => {});
}

$('restart').addEventListener('click', () => askToAct('Restart a part of the gateway', restartChoices(view.state.node.tree || [])));
$('level').addEventListener('click', () => {
    askToAct('What the gateway writes to its log', levelChoices());
    $('action-which').value = String(Math.max(0, LEVELS.indexOf(view.state.log_level)));
    showChoice();
});
$('action-which').addEventListener('change', showChoice);
$('action-cancel').addEventListener('click', () => $('action').close());
$('action-form').addEventListener('submit', event => {
    event.preventDefault();
    act();
});
