/*
 * What Rust calls of libxslt, in four functions.
 *
 * Why C: libxslt reports errors through functions with variable arguments, which Rust cannot define, and its
 * contexts are structures whose members are set by hand, which only its own headers describe.
 *
 * Nothing here reads a file, opens a connection or outlives its call, but for compiled stylesheets. Services of
 * the same process may use the same libraries (Python's lxml does), so what is global in them stays as it was:
 * handlers of errors belong to threads or are put back, functions are registered with contexts, and the
 * functions that count memory are those of the C library for every thread that does not transform.
 */

#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libexslt/exslt.h>
#include <libxml/parser.h>
#include <libxml/xmlerror.h>
#include <libxml/xmlmemory.h>
#include <libxml/xpath.h>
#include <libxml/xpathInternals.h>
#include <libxslt/documents.h>
#include <libxslt/extensions.h>
#include <libxslt/imports.h>
#include <libxslt/security.h>
#include <libxslt/transform.h>
#include <libxslt/variables.h>
#include <libxslt/xslt.h>
#include <libxslt/xsltInternals.h>
#include <libxslt/xsltutils.h>

/* The addresses of stylesheets, of the documents beside them, and of what they transform: none can be opened. */
#define BASE "crosstie:/"
#define STYLESHEET BASE "stylesheet.xsl"
#define SOURCE "crosstie:source"

/* Both were checked before: well-formed, within limits, without a document type declaration. */
#define OPTIONS (XML_PARSE_NONET | XML_PARSE_NOCDATA | XML_PARSE_HUGE | XML_PARSE_BIG_LINES | XML_PARSE_IGNORE_ENC)

/* How often the clock is read: once per so many allocations. */
#define ALLOCATIONS_PER_LOOK 64

/* What a piece of a report is; numbers that Rust knows. */
enum { REPORT_TEXT = 0, REPORT_PLACE = 1, REPORT_LIBRARY = 2 };

/* Why a transformation ended; numbers that Rust knows. */
enum {
    ENDED_DONE = 0,
    ENDED_FAILED = 1,
    ENDED_TERMINATED = 2,
    ENDED_TIME = 3,
    ENDED_MEMORY = 4,
    ENDED_OUTPUT = 5,
    ENDED_DEPTH = 6,
    ENDED_FORBIDDEN = 7,
    ENDED_SOURCE = 8
};

typedef void (*report_function)(void *context, int kind, int line, const char *text, size_t length);
typedef int (*write_function)(void *context, const char *bytes, size_t length);

struct limits {
    /* Milliseconds of CLOCK_MONOTONIC from now. */
    unsigned long milliseconds;
    size_t memory;
    size_t output;
    int depth;
};

/* What a stylesheet may include or import. */
struct document {
    const char *name;
    const char *text;
    size_t length;
};

struct parameter {
    const char *name;
    const char *value;
    /* Whether the value is an expression (a number, a truth value) and not text. */
    int is_expression;
};

struct made {
    /* 1 XML, 2 HTML, 3 text. */
    int method;
    char encoding[64];
    char media_type[128];
};

/* One call on this thread. */
struct run {
    report_function report;
    write_function write;
    void *context;
    const struct document *documents;
    size_t document_count;
    xsltTransformContextPtr transformation;
    size_t used;
    size_t memory;
    size_t written;
    size_t output;
    unsigned allocations;
    struct timespec deadline;
    int errors;
    int is_too_deep;
    /* One of the reasons above; 0 while nothing is wrong. */
    int ended;
};

static __thread struct run *running;

/* Reports. */

static void report(struct run *run, int kind, int line, const char *format, va_list arguments)
{
    char text[4096];
    int length = vsnprintf(text, sizeof text, format, arguments);
    if (length < 0) {
        return;
    }
    if ((size_t) length >= sizeof text) {
        length = (int) sizeof text - 1;
    }
    if (strstr(text, "nfinite template recursion") != NULL || strstr(text, "nfinite recursion") != NULL) {
        run->is_too_deep = 1;
    }
    run->report(run->context, kind, line, text, (size_t) length);
}

static void report_text(struct run *run, int kind, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report(run, kind, line, format, arguments);
    va_end(arguments);
}

/* What libxslt says, of stylesheets and of transformations. Called on any thread while a stylesheet is compiled. */
static void on_said(void *context, const char *format, ...)
{
    struct run *run = running;
    va_list arguments;
    (void) context;
    if (run == NULL) {
        return;
    }
    /* The place of an error comes before its text; messages of a stylesheet have none. */
    int is_place = strncmp(format, "%s:", 3) == 0 || strcmp(format, "%s\n") == 0;
    run->errors += is_place;
    va_start(arguments, format);
    report(run, is_place ? REPORT_PLACE : REPORT_TEXT, 0, format, arguments);
    va_end(arguments);
}

/* What libxml2 says: of XML and of XPath. Belongs to the thread. */
static void on_library_error(void *context, xmlErrorPtr error)
{
    struct run *run = running;
    (void) context;
    if (run == NULL || error == NULL || error->message == NULL || error->level < XML_ERR_ERROR) {
        return;
    }
    run->errors += 1;
    report_text(run, REPORT_LIBRARY, error->domain == XML_FROM_PARSER ? error->line : 0, "%s", error->message);
}

static void on_nothing(void *context, const char *format, ...)
{
    (void) context;
    (void) format;
}

/* Memory and time. Both are looked after where memory is asked for: whatever loops asks for some. */

static void stop(struct run *run, int why)
{
    xsltTransformContextPtr transformation = run->transformation;
    if (run->ended != ENDED_DONE) {
        return;
    }
    run->ended = why;
    if (transformation == NULL) {
        return;
    }
    /* The next instruction ends it, and the next step of an expression. */
    transformation->state = XSLT_STATE_STOPPED;
    transformation->opLimit = 1;
    transformation->opCount = 1;
    if (transformation->xpathCtxt != NULL) {
        transformation->xpathCtxt->opLimit = 1;
        transformation->xpathCtxt->opCount = 1;
    }
}

static int is_late(const struct run *run)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > run->deadline.tv_sec
        || (now.tv_sec == run->deadline.tv_sec && now.tv_nsec >= run->deadline.tv_nsec);
}

static void took(struct run *run, void *memory)
{
    if (memory == NULL) {
        return;
    }
    run->used += malloc_usable_size(memory);
    if (run->memory == 0) {
        return;
    }
    if (run->used > run->memory) {
        stop(run, ENDED_MEMORY);
    }
    run->allocations += 1;
    if (run->allocations % ALLOCATIONS_PER_LOOK == 0 && is_late(run)) {
        stop(run, ENDED_TIME);
    }
}

static void gave_back(struct run *run, void *memory)
{
    if (memory != NULL) {
        size_t size = malloc_usable_size(memory);
        run->used -= size < run->used ? size : run->used;
    }
}

static void *counted_malloc(size_t size)
{
    void *memory = malloc(size);
    if (running != NULL) {
        took(running, memory);
    }
    return memory;
}

static void *counted_realloc(void *memory, size_t size)
{
    if (running != NULL) {
        gave_back(running, memory);
    }
    memory = realloc(memory, size);
    if (running != NULL) {
        took(running, memory);
    }
    return memory;
}

static char *counted_strdup(const char *text)
{
    char *copy = strdup(text);
    if (running != NULL) {
        took(running, copy);
    }
    return copy;
}

static void counted_free(void *memory)
{
    if (running != NULL) {
        gave_back(running, memory);
    }
    free(memory);
}

/* What stylesheets may not do. */

static void refuse(xsltTransformContextPtr transformation, const char *what, const char *where)
{
    struct run *run = running;
    (void) transformation;
    if (run != NULL) {
        report_text(run, REPORT_LIBRARY, 0, "%s %s is not allowed", what, where == NULL ? "" : where);
        stop(run, ENDED_FORBIDDEN);
    }
}

static int may_not_read(xsltSecurityPrefsPtr preferences, xsltTransformContextPtr transformation, const char *where)
{
    (void) preferences;
    refuse(transformation, "reading", where);
    return 0;
}

static int may_not_write(xsltSecurityPrefsPtr preferences, xsltTransformContextPtr transformation, const char *where)
{
    (void) preferences;
    refuse(transformation, "writing", where);
    return 0;
}

/* document(): document('') is the document that the instruction stands in, and there is no other. */
static void own_document(xmlXPathParserContextPtr parser, int arguments)
{
    xsltTransformContextPtr transformation = xsltXPathGetTransformContext(parser);
    if (arguments < 1 || arguments > 2 || transformation == NULL) {
        xmlXPathErr(parser, XPATH_INVALID_ARITY);
        return;
    }
    if (arguments == 2) {
        xmlXPathFreeObject(valuePop(parser));
    }
    xmlChar *where = xmlXPathPopString(parser);
    xmlNodePtr node = NULL;
    if (where != NULL && where[0] == 0) {
        xmlNodePtr instruction = transformation->inst;
        node = (xmlNodePtr) (instruction == NULL ? transformation->style->doc : instruction->doc);
    } else {
        refuse(transformation, "document(): reading", (const char *) where);
    }
    xmlFree(where);
    valuePush(parser, xmlXPathNewNodeSet(node));
}

/* Documents beside a stylesheet. */

static xsltDocLoaderFunc loaded_before;

/* Finds what a stylesheet that is compiled includes or imports. Called on any thread while one is compiled. */
static xmlDocPtr load(const xmlChar *where, xmlDictPtr dictionary, int options, void *context, xsltLoadType type)
{
    struct run *run = running;
    const char *name = (const char *) where;
    if (run == NULL) {
        return loaded_before(where, dictionary, options, context, type);
    }
    if (name == NULL || type != XSLT_LOAD_STYLESHEET || strncmp(name, BASE, strlen(BASE)) != 0) {
        return NULL;
    }
    for (size_t index = 0; index < run->document_count; index++) {
        const struct document *document = &run->documents[index];
        if (strcmp(document->name, name + strlen(BASE)) != 0) {
            continue;
        }
        xmlParserCtxtPtr parser = xmlNewParserCtxt();
        if (parser == NULL) {
            return NULL;
        }
        if (dictionary != NULL) {
            xmlDictFree(parser->dict);
            parser->dict = dictionary;
            xmlDictReference(dictionary);
        }
        xmlDocPtr loaded =
            xmlCtxtReadMemory(parser, document->text, (int) document->length, name, "UTF-8", OPTIONS);
        xmlFreeParserCtxt(parser);
        return loaded;
    }
    return NULL;
}

/* The whole. */

static pthread_once_t begun = PTHREAD_ONCE_INIT;
static pthread_mutex_t compiling = PTHREAD_MUTEX_INITIALIZER;
static xsltSecurityPrefsPtr forbidden;

static void begin(void)
{
    xmlMemSetup(counted_free, counted_malloc, counted_realloc, counted_strdup);
    xmlInitParser();
    xsltInit();
    exsltCommonRegister();
    exsltMathRegister();
    exsltSetsRegister();
    exsltFuncRegister();
    exsltStrRegister();
    exsltDateRegister();
    /* Else what libxslt prints of its stacks goes to the standard error. */
    xsltSetGenericErrorFunc(NULL, on_said);
    forbidden = xsltNewSecurityPrefs();
    if (forbidden != NULL) {
        xsltSetSecurityPrefs(forbidden, XSLT_SECPREF_READ_FILE, may_not_read);
        xsltSetSecurityPrefs(forbidden, XSLT_SECPREF_READ_NETWORK, may_not_read);
        xsltSetSecurityPrefs(forbidden, XSLT_SECPREF_WRITE_FILE, may_not_write);
        xsltSetSecurityPrefs(forbidden, XSLT_SECPREF_WRITE_NETWORK, may_not_write);
        xsltSetSecurityPrefs(forbidden, XSLT_SECPREF_CREATE_DIRECTORY, may_not_write);
    }
}

/* Listens to what is said on this thread until `unlisten`. */
static void listen(struct run *run)
{
    pthread_once(&begun, begin);
    running = run;
    xmlSetStructuredErrorFunc(NULL, on_library_error);
    xmlSetGenericErrorFunc(NULL, on_nothing);
}

static void unlisten(void)
{
    xmlSetStructuredErrorFunc(NULL, NULL);
    xmlSetGenericErrorFunc(NULL, NULL);
    xmlResetLastError();
    running = NULL;
}

/* How much libxslt found wrong with a stylesheet and what it imports, whoever heard of it. */
static int problems(xsltStylesheetPtr stylesheet)
{
    int found = 0;
    for (; stylesheet != NULL; stylesheet = xsltNextImport(stylesheet)) {
        found += stylesheet->errors + stylesheet->warnings;
    }
    return found;
}

/* Whether results can be written as xsl:output says. */
static int can_be_written(struct run *run, xsltStylesheetPtr stylesheet)
{
    const xmlChar *encoding = NULL;
    XSLT_GET_IMPORT_PTR(encoding, stylesheet, encoding)
    if (encoding == NULL) {
        /* Said, since libxml2 writes what is not ASCII as references where nobody does. */
        stylesheet->encoding = xmlStrdup(BAD_CAST "UTF-8");
        return 1;
    }
    if (xmlFindCharEncodingHandler((const char *) encoding) != NULL) {
        return 1;
    }
    report_text(run, REPORT_LIBRARY, 0, "xsl:output: the encoding %s is not known", (const char *) encoding);
    return 0;
}

/*
 * Compiles a stylesheet; NULL when it has errors. They are reported, unless somebody else in the process took the
 * one function that all stylesheets report to: then the next attempt tells.
 */
void *crosstie_xslt_compile(
    const char *text,
    size_t length,
    const struct document *documents,
    size_t document_count,
    report_function report,
    void *context)
{
    struct run run = {
        .report = report, .context = context, .documents = documents, .document_count = document_count
    };
    xsltStylesheetPtr stylesheet = NULL;
    listen(&run);
    xmlDocPtr document = xmlReadMemory(text, (int) length, STYLESHEET, "UTF-8", OPTIONS);
    if (document != NULL) {
        pthread_mutex_lock(&compiling);
        xmlGenericErrorFunc said_before = xsltGenericError;
        void *context_before = xsltGenericErrorContext;
        loaded_before = xsltDocDefaultLoader;
        xsltSetGenericErrorFunc(NULL, on_said);
        xsltSetLoaderFunc(load);
        stylesheet = xsltParseStylesheetDoc(document);
        xsltSetLoaderFunc(loaded_before);
        xsltSetGenericErrorFunc(context_before, said_before);
        pthread_mutex_unlock(&compiling);
        if (stylesheet == NULL) {
            xmlFreeDoc(document);
        } else if (run.errors + problems(stylesheet) > 0 || !can_be_written(&run, stylesheet)) {
            /* libxslt goes on after some errors, such as instructions that it does not know: nobody meant those. */
            xsltFreeStylesheet(stylesheet);
            stylesheet = NULL;
        }
    }
    unlisten();
    return stylesheet;
}

/* Frees what `crosstie_xslt_compile` made. */
void crosstie_xslt_free(void *stylesheet)
{
    xsltFreeStylesheet(stylesheet);
}

static int write_piece(void *context, const char *bytes, int length)
{
    struct run *run = context;
    if (length <= 0) {
        return 0;
    }
    run->written += (size_t) length;
    if (run->written > run->output) {
        stop(run, ENDED_OUTPUT);
        return -1;
    }
    return run->write(run->context, bytes, (size_t) length) == 0 ? length : -1;
}

static void copy(char *into, size_t size, const xmlChar *text)
{
    snprintf(into, size, "%s", text == NULL ? "" : (const char *) text);
}

/* Writes the result as xsl:output says. */
static void save(struct run *run, xsltStylesheetPtr stylesheet, xmlDocPtr result, struct made *made)
{
    const xmlChar *encoding = NULL, *method = NULL, *media_type = NULL;
    XSLT_GET_IMPORT_PTR(encoding, stylesheet, encoding)
    XSLT_GET_IMPORT_PTR(method, stylesheet, method)
    XSLT_GET_IMPORT_PTR(media_type, stylesheet, mediaType)
    if (method == NULL) {
        made->method = result->type == XML_HTML_DOCUMENT_NODE ? 2 : 1;
    } else {
        made->method = xmlStrEqual(method, BAD_CAST "text") ? 3 : xmlStrEqual(method, BAD_CAST "html") ? 2 : 1;
    }
    copy(made->media_type, sizeof made->media_type, media_type);
    copy(made->encoding, sizeof made->encoding, encoding);
    xmlCharEncodingHandlerPtr encoder = NULL;
    if (encoding != NULL) {
        encoder = xmlFindCharEncodingHandler((const char *) encoding);
        if (encoder == NULL) {
            report_text(run, REPORT_LIBRARY, 0, "the encoding %s is not known", (const char *) encoding);
            run->ended = ENDED_FAILED;
            return;
        }
        if (xmlStrEqual((const xmlChar *) encoder->name, BAD_CAST "UTF-8")) {
            encoder = NULL;
        }
    }
    xmlOutputBufferPtr buffer = xmlOutputBufferCreateIO(write_piece, NULL, run, encoder);
    if (buffer == NULL) {
        run->ended = ENDED_FAILED;
        return;
    }
    int saved = xsltSaveResultTo(buffer, result, stylesheet);
    int closed = xmlOutputBufferClose(buffer);
    if ((saved < 0 || closed < 0) && run->ended == ENDED_DONE) {
        run->ended = ENDED_FAILED;
    }
}

static void set_parameters(xsltTransformContextPtr transformation, const struct parameter *parameters, size_t count)
{
    for (size_t index = 0; index < count; index++) {
        const xmlChar *name = BAD_CAST parameters[index].name, *value = BAD_CAST parameters[index].value;
        if (parameters[index].is_expression) {
            xsltEvalOneUserParam(transformation, name, value);
        } else {
            xsltQuoteOneUserParam(transformation, name, value);
        }
    }
}

static void apply(
    struct run *run,
    xsltStylesheetPtr stylesheet,
    xmlDocPtr source,
    const struct parameter *parameters,
    size_t parameter_count,
    int depth,
    struct made *made)
{
    xsltTransformContextPtr transformation = xsltNewTransformContext(stylesheet, source);
    if (transformation == NULL || forbidden == NULL) {
        run->ended = ENDED_FAILED;
        xsltFreeTransformContext(transformation);
        return;
    }
    run->transformation = transformation;
    xsltSetTransformErrorFunc(transformation, NULL, on_said);
    /* A name has one function: the first must go. */
    xmlXPathRegisterFunc(transformation->xpathCtxt, BAD_CAST "document", NULL);
    if (xsltSetCtxtSecurityPrefs(forbidden, transformation) != 0
        || xmlXPathRegisterFunc(transformation->xpathCtxt, BAD_CAST "document", own_document) != 0) {
        stop(run, ENDED_FAILED);
    }
    transformation->xinclude = 0;
    transformation->maxTemplateDepth = depth;
    transformation->maxTemplateVars = depth * 32;
    set_parameters(transformation, parameters, parameter_count);
    xmlDocPtr result = NULL;
    if (run->ended == ENDED_DONE) {
        result = xsltApplyStylesheetUser(stylesheet, source, NULL, NULL, NULL, transformation);
    }
    /* libxslt goes on after some errors of expressions; their results would be wrong. */
    if (run->ended == ENDED_DONE
        && (result == NULL || transformation->state != XSLT_STATE_OK || run->errors > 0)) {
        int is_terminated = transformation->state == XSLT_STATE_STOPPED && run->errors == 0;
        run->ended = run->is_too_deep ? ENDED_DEPTH : is_terminated ? ENDED_TERMINATED : ENDED_FAILED;
    }
    if (run->ended == ENDED_DONE) {
        save(run, stylesheet, result, made);
    }
    run->transformation = NULL;
    xmlFreeDoc(result);
    xsltFreeTransformContext(transformation);
}

/* Transforms a document, and says why that ended. */
int crosstie_xslt_transform(
    void *stylesheet,
    const char *text,
    size_t length,
    const struct parameter *parameters,
    size_t parameter_count,
    const struct limits *limits,
    report_function report,
    write_function write,
    void *context,
    struct made *made)
{
    struct run run = {
        .report = report,
        .write = write,
        .context = context,
        .memory = limits->memory,
        .output = limits->output,
    };
    clock_gettime(CLOCK_MONOTONIC, &run.deadline);
    run.deadline.tv_sec += (time_t) (limits->milliseconds / 1000);
    run.deadline.tv_nsec += (long) (limits->milliseconds % 1000) * 1000000;
    if (run.deadline.tv_nsec >= 1000000000) {
        run.deadline.tv_sec += 1;
        run.deadline.tv_nsec -= 1000000000;
    }
    listen(&run);
    xmlDocPtr source = xmlReadMemory(text, (int) length, SOURCE, "UTF-8", OPTIONS);
    if (source == NULL) {
        run.ended = run.ended == ENDED_DONE ? ENDED_SOURCE : run.ended;
    } else if (run.ended == ENDED_DONE) {
        apply(&run, stylesheet, source, parameters, parameter_count, limits->depth, made);
    }
    xmlFreeDoc(source);
    unlisten();
    return run.ended;
}
