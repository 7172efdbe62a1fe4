"""1 000 tools as servers have them, and 50 questions that were written down before anything was ranked: what somebody would type
who does not know the tools, and the one tool that was meant.

Each service has five kinds of things, and five tools for each of these.
"""

from __future__ import annotations

import json
from typing import Any

# {service: (what it is, {thing: (how it is described, arguments beside its id)})}
SERVICES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "github": (
        "GitHub",
        {
            "issue": ("an issue, bug report or feature request", "repository title body labels"),
            "pull_request": ("a pull request with its code changes", "repository base head title"),
            "branch": ("a branch of a repository", "repository from_branch"),
            "release": ("a release with notes and a version tag", "repository tag notes"),
            "workflow": ("a workflow run of Actions, the CI pipeline", "repository workflow ref"),
        },
    ),
    "gitlab": (
        "GitLab",
        {
            "merge_request": ("a merge request", "project source_branch target_branch"),
            "pipeline": ("a CI pipeline", "project ref variables"),
            "runner": ("a runner that executes jobs", "tags description"),
            "milestone": ("a milestone of a project", "project due_date"),
            "snippet": ("a code snippet", "file_name content visibility"),
        },
    ),
    "slack": (
        "Slack",
        {
            "message": ("a chat message in a channel", "channel text thread"),
            "channel": ("a channel of the workspace", "topic is_private"),
            "reaction": ("an emoji reaction to a message", "channel timestamp emoji"),
            "reminder": ("a reminder for a person", "text time user"),
            "user_status": ("the status of a user, such as away or on vacation", "emoji expiration"),
        },
    ),
    "gmail": (
        "Gmail",
        {
            "email": ("an email message", "to subject body attachments"),
            "draft": ("a draft that has not been sent", "to subject body"),
            "label": ("a label of the mailbox", "color"),
            "filter": ("a filter rule for incoming mail", "from_address action"),
            "vacation_reply": ("the automatic out-of-office reply", "text start end"),
        },
    ),
    "calendar": (
        "Google Calendar",
        {
            "event": ("an event or meeting with attendees", "title start end attendees location"),
            "availability": ("free and busy times of people", "people start end"),
            "room": ("a meeting room", "capacity building"),
            "invitation": ("an invitation to accept or decline", "answer comment"),
            "holiday": ("a public holiday of a country", "country year"),
        },
    ),
    "drive": (
        "Google Drive",
        {
            "file": ("a file in the cloud storage", "folder mime_type content"),
            "folder": ("a folder", "parent color"),
            "permission": ("who may see or edit a shared file", "file email role"),
            "comment": ("a comment on a document", "file text"),
            "revision": ("an earlier version of a file", "file keep_forever"),
        },
    ),
    "jira": (
        "Jira",
        {
            "ticket": ("a ticket of the backlog", "project summary assignee priority"),
            "sprint": ("a sprint of a board", "board goal start end"),
            "epic": ("an epic that groups stories", "project summary"),
            "worklog": ("time that was spent on a ticket", "ticket hours comment"),
            "board": ("a scrum or kanban board", "project type"),
        },
    ),
    "salesforce": (
        "Salesforce",
        {
            "lead": ("a sales lead", "company email source"),
            "opportunity": ("an opportunity or deal in the pipeline", "account amount stage close_date"),
            "account": ("a customer account", "industry website"),
            "contact": ("a contact person of a customer", "account phone email"),
            "case": ("a support case", "account subject priority"),
        },
    ),
    "stripe": (
        "Stripe",
        {
            "payment": ("a card payment", "amount currency customer"),
            "refund": ("a refund of a charge", "payment amount reason"),
            "invoice": ("an invoice for a customer", "customer items due_date"),
            "subscription": ("a recurring subscription", "customer plan trial_days"),
            "coupon": ("a discount coupon", "percent_off duration"),
        },
    ),
    "aws_s3": (
        "Amazon S3",
        {
            "bucket": ("a storage bucket", "region versioning"),
            "object": ("an object in a bucket", "bucket key content"),
            "lifecycle_rule": ("a rule by which objects expire", "bucket days prefix"),
            "presigned_url": ("a temporary download link for an object", "bucket key expires"),
            "replication": ("replication of a bucket to another region", "bucket destination"),
        },
    ),
    "aws_ec2": (
        "Amazon EC2",
        {
            "instance": ("a virtual machine", "image instance_type key_pair"),
            "security_group": ("firewall rules of machines", "vpc ingress egress"),
            "volume": ("a disk volume", "size zone encrypted"),
            "snapshot": ("a snapshot backup of a disk", "volume description"),
            "elastic_ip": ("a static public IP address", "instance"),
        },
    ),
    "kubernetes": (
        "Kubernetes",
        {
            "pod": ("a pod with its containers", "namespace image"),
            "deployment": ("a deployment and its replicas", "namespace image replicas"),
            "secret": ("a secret value", "namespace data"),
            "config_map": ("a config map", "namespace data"),
            "namespace": ("a namespace of the cluster", "labels quota"),
        },
    ),
    "docker": (
        "Docker",
        {
            "container": ("a container on this host", "image ports environment"),
            "image": ("an image from a registry", "tag registry"),
            "network": ("a bridge network", "driver subnet"),
            "compose_stack": ("a stack of a compose file", "file project"),
            "build": ("a build from a Dockerfile", "context dockerfile"),
        },
    ),
    "postgres": (
        "PostgreSQL",
        {
            "table": ("a table and its columns", "schema columns"),
            "query": ("an SQL query", "sql parameters"),
            "index": ("an index that makes queries faster", "table columns unique"),
            "role": ("a role and its grants", "password grants"),
            "backup": ("a dump of the database", "database format"),
        },
    ),
    "redis": (
        "Redis",
        {
            "key": ("a cached value under a key", "value ttl"),
            "stream": ("a stream with consumer groups", "group fields"),
            "sorted_set": ("a sorted set such as a leaderboard", "member score"),
            "lock": ("a distributed lock", "owner ttl"),
            "pubsub_channel": ("a publish and subscribe channel", "payload"),
        },
    ),
    "datadog": (
        "Datadog",
        {
            "monitor": ("a monitor that alerts on a metric", "query threshold notify"),
            "dashboard": ("a dashboard of graphs", "title widgets"),
            "log": ("log lines of services", "query from to"),
            "metric": ("a time series metric", "query from to"),
            "incident": ("an incident", "title severity commander"),
        },
    ),
    "pagerduty": (
        "PagerDuty",
        {
            "on_call": ("who is on call now", "schedule until"),
            "escalation_policy": ("an escalation policy", "teams rules"),
            "alert": ("an alert to acknowledge", "service summary"),
            "schedule": ("an on-call schedule rotation", "users start"),
            "postmortem": ("a postmortem report of an outage", "incident timeline"),
        },
    ),
    "notion": (
        "Notion",
        {
            "page": ("a page of the wiki", "parent title content"),
            "database": ("a database of pages", "parent properties"),
            "block": ("a block of text in a page", "page type text"),
            "template": ("a page template", "title blocks"),
            "workspace_member": ("a member of the workspace", "email role"),
        },
    ),
    "figma": (
        "Figma",
        {
            "design": ("a design file", "team title"),
            "component": ("a component of the design system", "file variant"),
            "frame": ("a frame of a design, exported as an image", "file node format"),
            "style": ("a color or text style", "file color font"),
            "prototype": ("a clickable prototype", "file start_frame"),
        },
    ),
    "shopify": (
        "Shopify",
        {
            "product": ("a product of the shop", "title price variants"),
            "order": ("an order of a customer", "customer line_items shipping"),
            "inventory": ("stock levels at a location", "product location quantity"),
            "discount": ("a discount code", "percent starts ends"),
            "collection": ("a collection of products", "title rules"),
        },
    ),
    "zendesk": (
        "Zendesk",
        {
            "support_ticket": ("a support ticket of a requester", "requester subject priority"),
            "macro": ("a macro of canned answers", "title actions"),
            "satisfaction_rating": ("how satisfied a customer was", "ticket score comment"),
            "help_article": ("an article of the help center", "section title body"),
            "agent": ("a support agent", "email groups"),
        },
    ),
    "hubspot": (
        "HubSpot",
        {
            "campaign": ("a marketing campaign", "budget start end"),
            "newsletter": ("a newsletter to subscribers", "subject audience content"),
            "form": ("a form of a landing page", "fields redirect"),
            "landing_page": ("a landing page", "title template"),
            "audience": ("a list of recipients", "filters"),
        },
    ),
    "weather": (
        "the weather service",
        {
            "forecast": ("the forecast of the coming days for a city", "city days units"),
            "current_conditions": ("temperature and wind right now", "city units"),
            "air_quality": ("air pollution and pollen", "city"),
            "storm_warning": ("a warning of storms and floods", "region"),
            "tide": ("high and low tides at a beach", "harbor date"),
        },
    ),
    "maps": (
        "the map service",
        {
            "route": ("directions from one address to another", "origin destination mode"),
            "place": ("a restaurant, shop or other place nearby", "query near radius"),
            "geocode": ("latitude and longitude of an address", "address"),
            "traffic": ("traffic jams on a road", "road direction"),
            "elevation": ("height above the sea of a point", "latitude longitude"),
        },
    ),
    "flights": (
        "the airline service",
        {
            "flight": ("a flight between two airports", "origin destination date passengers"),
            "seat": ("a seat on the plane", "booking row"),
            "boarding_pass": ("a boarding pass", "booking passenger"),
            "baggage": ("checked baggage and luggage", "booking pieces"),
            "delay": ("delays and cancellations of a flight", "flight_number date"),
        },
    ),
    "hotels": (
        "the hotel service",
        {
            "reservation": ("a room reservation in a hotel", "hotel check_in check_out guests"),
            "rate": ("the price of a night", "hotel date"),
            "amenity": ("a pool, breakfast or other amenity", "hotel"),
            "review": ("what guests wrote of a hotel", "hotel stars text"),
            "loyalty_points": ("points of a loyalty program", "member"),
        },
    ),
    "spotify": (
        "Spotify",
        {
            "playlist": ("a playlist of songs", "title tracks"),
            "track": ("a song", "artist album"),
            "player": ("the playback: play, pause, skip", "device position"),
            "podcast": ("a podcast episode", "show"),
            "artist": ("a musician or band", "genre"),
        },
    ),
    "home": (
        "the smart home",
        {
            "light": ("a lamp that can be dimmed", "room brightness color"),
            "thermostat": ("the heating and its temperature", "room temperature mode"),
            "door_lock": ("the lock of the front door", "door code"),
            "camera": ("a security camera picture", "room"),
            "vacuum": ("the robot that cleans the floor", "room mode"),
        },
    ),
    "banking": (
        "the bank",
        {
            "transfer": ("a money transfer to an IBAN", "iban amount reference"),
            "balance": ("how much money is on an account", "account"),
            "statement": ("an account statement of transactions", "account month"),
            "standing_order": ("a standing order that repeats", "iban amount interval"),
            "credit_card": ("a credit card and its limit", "card limit"),
        },
    ),
    "accounting": (
        "the accounting system",
        {
            "expense": ("an expense claim with its receipt", "amount category receipt"),
            "bill": ("a bill of a supplier", "supplier amount due_date"),
            "tax_return": ("the VAT return of a quarter", "quarter"),
            "ledger_entry": ("an entry of the general ledger", "debit credit amount"),
            "payroll": ("salaries of a month", "month employees"),
        },
    ),
    "hr": (
        "the HR system",
        {
            "employee": ("an employee record", "department manager start_date"),
            "leave_request": ("a request for vacation or sick leave", "employee start end type"),
            "job_posting": ("a vacancy that is advertised", "title location"),
            "applicant": ("a candidate who applied", "posting resume"),
            "performance_review": ("the yearly review of an employee", "employee goals rating"),
        },
    ),
    "legal": (
        "the contract archive",
        {
            "contract": ("a contract with a partner", "partner term value"),
            "signature": ("an electronic signature of a document", "document signer"),
            "clause": ("a standard clause", "topic language"),
            "nda": ("a confidentiality agreement", "partner expires"),
            "trademark": ("a registered trademark", "classes country"),
        },
    ),
    "hospital": (
        "the hospital",
        {
            "appointment": ("a doctor's appointment of a patient", "patient doctor time"),
            "prescription": ("a prescription of medication", "patient drug dose"),
            "lab_result": ("blood tests and other lab results", "patient test"),
            "vaccination": ("a vaccination record", "patient vaccine date"),
            "referral": ("a referral to a specialist", "patient specialty"),
        },
    ),
    "school": (
        "the school",
        {
            "course": ("a course and its syllabus", "teacher semester"),
            "grade": ("a mark of a student", "student course mark"),
            "homework": ("homework that is due", "course due_date"),
            "exam": ("an exam date and room", "course date"),
            "attendance": ("who was absent from class", "student date"),
        },
    ),
    "news": (
        "the news archive",
        {
            "headline": ("headlines of today", "topic country"),
            "article": ("the text of an article", "url"),
            "press_release": ("a press release of a company", "company date"),
            "rss_feed": ("an RSS feed", "url"),
            "fact_check": ("whether a claim is true", "claim"),
        },
    ),
    "stocks": (
        "the stock exchange",
        {
            "quote": ("the share price of a company", "symbol"),
            "portfolio": ("a portfolio of holdings", "account"),
            "trade": ("an order to buy or sell shares", "symbol side quantity"),
            "dividend": ("dividends that were paid", "symbol year"),
            "exchange_rate": ("the rate between two currencies, to convert money", "base target"),
        },
    ),
    "translate": (
        "the language service",
        {
            "translation": ("a translation of text into another language", "text target_language"),
            "glossary": ("a glossary of terms", "terms"),
            "detected_language": ("which language a text is written in", "text"),
            "transcript": ("speech of an audio file as text", "audio"),
            "summary": ("a short summary of a long text", "text length"),
        },
    ),
    "images": (
        "the image service",
        {
            "thumbnail": ("a small preview of a picture", "image width"),
            "watermark": ("a watermark on a photo", "image text"),
            "background": ("a picture whose background is cut out", "image"),
            "ocr_text": ("the text that is in a scan", "image language"),
            "qr_code": ("a QR code", "content size"),
        },
    ),
    "dns": (
        "the domain registrar",
        {
            "record": ("a DNS record of a zone", "zone type value ttl"),
            "domain": ("a domain and when it expires", "registrant"),
            "certificate": ("a TLS certificate", "hosts"),
            "redirect": ("a redirect of a host", "source target"),
            "whois": ("who owns a domain", "domain"),
        },
    ),
    "logistics": (
        "the parcel service",
        {
            "shipment": ("a parcel and where it is", "recipient weight"),
            "pickup": ("a courier who collects parcels", "address time"),
            "shipping_label": ("a label to print", "recipient format"),
            "customs_form": ("a customs declaration", "items value country"),
            "warehouse": ("a warehouse and its shelves", "city capacity"),
        },
    ),
}

VERBS = {
    "create": "Create, add or start",
    "list": "List or search",
    "get": "Get, show or read the details of",
    "update": "Update, change or edit",
    "delete": "Delete, remove or cancel",
}


def tools() -> list[dict[str, Any]]:
    return [
        {
            "name": f"{service}__{verb}_{thing}",
            "description": f"{words} {about} in {called}.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    name: {
                        "type": "string",
                        "description": f"{name} of the {thing}.".replace("_", " "),
                    }
                    for name in [*([] if verb == "create" else ["id"]), *arguments.split()]
                },
            },
        }
        for service, (called, things) in SERVICES.items()
        for thing, (about, arguments) in things.items()
        for verb, words in VERBS.items()
    ]


def encoded() -> bytes:
    return json.dumps({"tools": tools()}).encode()


QUESTIONS: dict[str, str] = {
    "file a bug report on github": "github__create_issue",
    "open a pull request with my changes": "github__create_pull_request",
    "show me the notes of the latest release": "github__get_release",
    "remove an old branch": "github__delete_branch",
    "start the gitlab CI pipeline": "gitlab__create_pipeline",
    "change a merge request": "gitlab__update_merge_request",
    "post a chat message to the team channel": "slack__create_message",
    "remind Bob tomorrow": "slack__create_reminder",
    "react with a thumbs up emoji": "slack__create_reaction",
    "send an email with an attachment": "gmail__create_email",
    "set my out of office reply": "gmail__update_vacation_reply",
    "schedule a meeting with attendees on Monday": "calendar__create_event",
    "when are people free or busy": "calendar__get_availability",
    "who may edit this shared file": "drive__get_permission",
    "restore an earlier version of a file": "drive__get_revision",
    "log hours I spent on a ticket": "jira__create_worklog",
    "plan the next sprint": "jira__create_sprint",
    "new sales lead from a trade fair": "salesforce__create_lead",
    "give a customer a refund for a charge": "stripe__create_refund",
    "cancel a recurring subscription": "stripe__delete_subscription",
    "temporary download link for an s3 object": "aws_s3__create_presigned_url",
    "launch a virtual machine": "aws_ec2__create_instance",
    "open a port in the firewall of the machines": "aws_ec2__update_security_group",
    "scale the deployment to more replicas": "kubernetes__update_deployment",
    "list pods in a namespace": "kubernetes__list_pod",
    "build an image from a Dockerfile": "docker__create_build",
    "run an SQL query": "postgres__create_query",
    "make slow queries faster with an index": "postgres__create_index",
    "search log lines of a service": "datadog__list_log",
    "who is on call right now": "pagerduty__get_on_call",
    "write a wiki page": "notion__create_page",
    "export a frame of the design as an image": "figma__get_frame",
    "how many are left in stock at a location": "shopify__get_inventory",
    "will it rain in Paris the coming days, forecast": "weather__get_forecast",
    "directions between two addresses": "maps__get_route",
    "find a restaurant nearby": "maps__list_place",
    "search flights between airports": "flights__list_flight",
    "is my flight delayed": "flights__get_delay",
    "book a hotel room reservation": "hotels__create_reservation",
    "pause the music playback": "spotify__update_player",
    "turn the heating to another temperature": "home__update_thermostat",
    "transfer money to an IBAN": "banking__create_transfer",
    "how much money is on my account": "banking__get_balance",
    "submit an expense with a receipt": "accounting__create_expense",
    "request vacation leave": "hr__create_leave_request",
    "make a doctor's appointment": "hospital__create_appointment",
    "convert dollars to euros exchange rate": "stocks__get_exchange_rate",
    "translate a text into French": "translate__create_translation",
    "read the text in a scan": "images__get_ocr_text",
    "where is my parcel": "logistics__get_shipment",
}
